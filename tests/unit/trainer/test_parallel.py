"""Workers end: by themselves, when they are asked to, and when they do not listen."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue

import pytest

from clip_common.errors import TrainingError
from clip_common.trainer import parallel

FORK = multiprocessing.get_context("fork")
Start = Callable[..., BaseProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that ends with the test, whatever becomes of it."""
    started: list[BaseProcess] = []

    def begin(work: Callable[..., object], *arguments: object) -> BaseProcess:
        process = FORK.Process(target=work, args=arguments)
        started.append(process)
        process.start()
        return process

    yield begin
    for process in started:
        process.kill()
        process.join(60)


def deaf(told: Connection) -> None:
    """What a process does that was ended inside malloc: SIGTERM ends it no more."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    told.send("up")
    time.sleep(600)


@pytest.mark.slow
def test_workers_that_do_not_listen_are_ended_too(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_PATIENCE", 2.0)
    ours, theirs = FORK.Pipe()
    processes = [start(deaf, theirs), start(deaf, theirs)]
    for _ in range(2):
        assert ours.poll(60)
        ours.recv()
    parallel._end(processes)
    assert [process.exitcode for process in processes] == [-signal.SIGKILL, -signal.SIGKILL]


@pytest.mark.parametrize("status", [1, -signal.SIGKILL])
def test_the_first_worker_that_fails_ends_the_waiting(status: int, start: Start) -> None:
    errors = [FORK.SimpleQueue(), FORK.SimpleQueue()]
    errors[1].put("Traceback\n  somewhere\nValueError: cannot be shared\n")
    processes = [start(time.sleep, 600), start(sys.exit, 1) if status > 0 else start(time.sleep, 600)]
    if status < 0:
        processes[1].kill()
    reason = "ValueError: cannot be shared" if status > 0 else "it ended with status -9"
    with pytest.raises(TrainingError, match=f"a worker failed: {reason}"):
        parallel._wait(processes, errors)
    assert processes[0].is_alive()


def fail_at_length(errors: SimpleQueue) -> None:
    errors.put("Traceback\n" + "  somewhere\n" * 100_000 + "ValueError: cannot be shared\n")
    sys.exit(1)


def test_a_worker_with_a_long_traceback_is_waited_for_no_longer(start: Start) -> None:
    """It ends only when its traceback, which is more than a pipe holds, has been taken from it."""
    errors = [FORK.SimpleQueue(), FORK.SimpleQueue()]
    processes = [start(time.sleep, 600), start(fail_at_length, errors[1])]
    failed: list[str] = []

    def wait() -> None:
        with pytest.raises(TrainingError) as error:
            parallel._wait(processes, errors)
        failed.append(str(error.value))

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(60)
    assert failed == ["a worker failed: ValueError: cannot be shared"]


def test_workers_that_end_well(start: Start) -> None:
    processes = [start(time.sleep, 0), start(time.sleep, 0)]
    parallel._wait(processes, [FORK.SimpleQueue(), FORK.SimpleQueue()])
    assert [process.exitcode for process in processes] == [0, 0]
