"""The life of a server, without Ray's: it ends, whatever has ended before."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")

from clip_common.server import run
from clip_common.server.settings import Settings


class Listener:
    """As uvicorn's server: ends where it is told to, or by itself; a signal comes meanwhile, or does not."""

    ends_by_itself = False
    signalled = False

    def __init__(self, _config: Any) -> None:
        self.should_exit = False

    def run(self, sockets: list[socket.socket]) -> None:
        if self.signalled:
            signal.raise_signal(signal.SIGTERM)
        while not (self.should_exit or self.ends_by_itself):
            threading.Event().wait(0.01)


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """What happened to Ray and to requests; no signal is waited for."""
    happened = SimpleNamespace(drained=False, down=[])

    class Gateway:
        admission = SimpleNamespace(
            api_key=None,
            draining=False,
            in_flight=0,
            end_the_endless=lambda: None,
            refuse_the_unread=lambda: None,
        )
        asking = 0

        def __init__(self, *_: Any) -> None:
            happened.gateway = self

    monkeypatch.setattr(run, "_connect", lambda *_: None)
    monkeypatch.setattr(run, "_replicas", lambda _: {})
    monkeypatch.setattr(run, "Gateway", Gateway)
    monkeypatch.setattr(run, "gateway_api", lambda _: None)
    monkeypatch.setattr(run, "_NOTICE", 0.0)
    monkeypatch.setattr(run.uvicorn, "Server", Listener)
    monkeypatch.setattr(run.serve, "shutdown", lambda: happened.down.append("serve"))
    monkeypatch.setattr(run.ray, "shutdown", lambda: happened.down.append("ray"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        happened.listener = listener
        yield happened
    for number, handler in handlers.items():
        signal.signal(number, handler)


def served(life: SimpleNamespace) -> int:
    return run.serve_until_stopped(Settings.model_validate({}), life.listener, None)


def test_a_server_whose_listener_has_ended_ends_too(
    life: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would stand there for ever, and answer nobody."""
    monkeypatch.setattr(Listener, "ends_by_itself", True)
    in_any_case = threading.Timer(60, signal.raise_signal, [signal.SIGTERM])
    in_any_case.start()
    try:
        assert served(life) == 1
        assert life.down == ["serve", "ray"]
    finally:
        in_any_case.cancel()


def test_a_second_signal_ends_a_server_also_where_ray_does_not_end(
    life: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, stop = threading.Event(), threading.Event()
    ended: list[int] = []
    monkeypatch.setattr(run, "_ENDING", 0.05)
    monkeypatch.setattr(run.ray, "shutdown", lambda: go_on.wait(120))
    monkeypatch.setattr(run.os, "_exit", ended.append)
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    stop.set()  # by the first
    signalled = threading.Thread(target=run._on_signal, args=(stop, signal.SIGTERM, None), daemon=True)
    signalled.start()
    signalled.join(60)
    waits = signalled.is_alive()
    go_on.set()
    signalled.join(60)
    assert not waits and ended == [128 + signal.SIGTERM]


def test_requests_are_answered_also_where_nobody_reads_what_the_server_says(
    life: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`clip-hub serve ... | head -1`."""
    monkeypatch.setattr(Listener, "signalled", True)
    reader, writer = os.pipe()
    os.close(reader)
    closed = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", closed)
    assert served(life) == 0
    assert life.gateway.admission.draining and life.down == ["serve", "ray"]
    with contextlib.suppress(BrokenPipeError):
        closed.close()
