"""Clients that do not read, or send headers without an end: their connections end, and they hold nothing."""

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
async def served(admission: Admission, app: Any = large) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    guarded = AdmissionMiddleware(app, admission)
    config = uvicorn.Config(guarded, http=TimeoutProtocol, log_level="critical", lifespan="off")
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


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET /", b"a" * 1024),
        (b"GET / HTTP/1.1\r\nX: ", b"a" * 1024),
        (b"GET / HTTP/1.1\r\n", b"X: a\r\n" * 200),
        (b"", b"\r\n" * 500),
        (CHUNKED + b"0\r\n", b"X: a\r\n" * 200),  # after the body
        (CHUNKED + b"1;", b"a" * 1024),
    ],
)
def test_headers_without_an_end_are_refused(start: bytes, piece: bytes) -> None:
    async def run() -> int:
        async with served(Admission(None, 1 << 20, 1 << 30, 30)) as (server, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(start)
            taken = 0
            while taken < 20 << 20:
                writer.write(piece)
                taken += len(piece)
                try:
                    await writer.drain()
                except ConnectionError:
                    break
                await asyncio.sleep(0)
            await until(lambda: not server.server_state.connections)
            writer.close()
            return taken

    assert asyncio.run(run()) < 10 << 20  # what the sockets hold


@pytest.mark.parametrize("headers", [1, 70_000])
def test_long_headers_are_said_to_be_too_long(headers: int) -> None:
    async def run() -> bytes:
        async with served(Admission(None, 1 << 20, 1 << 30, 30)) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /large HTTP/1.1\r\nX: " + b"a" * headers)
            writer.write(b"\r\n\r\n" if headers == 1 else b"")
            answer = await reader.read(1000)
            writer.close()
            return answer

    answer = asyncio.run(run())
    assert (b"200 OK" in answer) is (headers == 1)
    assert (b"400 Bad Request" in answer and b"have more than 65,536 bytes" in answer) is (headers > 1)


@pytest.mark.parametrize("chunk", [1, 3, 100_000])
def test_a_body_in_chunks_of_any_size_is_taken(chunk: int) -> None:
    received: list[int] = []

    async def count(_scope: Any, receive: Any, send: Any) -> None:
        received.append(len((await receive())["body"]))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> bytes:
        async with served(Admission(None, 1 << 20, 1 << 30, 30), count) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                CHUNKED + b"%x\r\n%s\r\n" % (chunk, b"a" * chunk) * (300_000 // chunk) + b"0\r\n\r\n"
            )
            answer = await reader.read(100)
            writer.close()
            return answer

    assert b"204" in asyncio.run(run()) and received == [300_000]


@pytest.mark.parametrize("count", [50, 5_000])
def test_too_many_requests_sent_at_once_end_the_connection(count: int) -> None:
    async def small(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> bytes:
        async with served(Admission(None, 1 << 20, 1 << 30, 30), small) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n" * (count - 1))
            writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer

    answer = asyncio.run(run())
    assert answer.count(b"200 OK") == count if count == 50 else b"400 Bad Request" in answer
