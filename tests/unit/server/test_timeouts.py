"""Clients that do not read: their connections end, and a server that is told to stop does so."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("httptools", reason="of the extra [test]")

import uvicorn

from clip_common.server import timeouts
from clip_common.server.admission import Admission, AdmissionMiddleware
from clip_common.server.timeouts import TimeoutProtocol
from tests.support.waiting import until

LARGE = 20 << 20
REQUEST = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"


async def large(_scope: Any, _receive: Any, send: Any) -> None:
    headers = [(b"content-length", str(LARGE).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(LARGE)})


@asynccontextmanager
async def served(admission: Admission) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    app = AdmissionMiddleware(large, admission)
    config = uvicorn.Config(app, http=TimeoutProtocol, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    running = asyncio.create_task(server._serve([listener]))
    try:
        yield server, listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await running


async def ask(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(REQUEST)
    await reader.readexactly(100)
    return reader, writer


def test_who_does_not_read_is_dropped_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts.TimeoutProtocol, "_patience", 2.0)  # enough for five to come
    admission = Admission(None, 1 << 20, 1 << 30, 30)

    async def run() -> None:
        async with served(admission) as (server, port):
            clients = [await ask(port) for _ in range(5)]
            await until(lambda: admission.bytes_held == 5 * LARGE)
            await until(lambda: not server.server_state.connections)
            await until(lambda: admission.in_flight == 0)
            assert admission.bytes_held == 0
            for _, writer in clients:
                writer.close()

    asyncio.run(run())


def test_who_reads_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "READING_SECONDS", 60.0)
    admission = Admission(None, 1 << 20, 1 << 30, 30)

    async def run() -> int:
        async with served(admission) as (_, port):
            reader, writer = await ask(port)
            total = 100
            while total < LARGE:
                total += len(await reader.read(1 << 16))
            writer.close()
            await until(lambda: admission.in_flight == 0)
            return total

    assert asyncio.run(run()) >= LARGE
