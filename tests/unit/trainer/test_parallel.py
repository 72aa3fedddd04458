"""Workers end: by themselves, when they are asked to, and when they do not listen."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from multiprocessing.connection import Connection

import pytest

from clip_common.errors import TrainingError
from clip_common.trainer import parallel

FORK = multiprocessing.get_context("fork")


def deaf(told: Connection) -> None:
    """What a process does that was ended inside malloc: SIGTERM ends it no more."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    told.send("up")
    time.sleep(600)


def test_workers_that_do_not_listen_are_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_PATIENCE", 0.5)
    ours, theirs = FORK.Pipe()
    processes = [FORK.Process(target=deaf, args=(theirs,), daemon=True) for _ in range(2)]
    processes += [FORK.Process(target=time.sleep, args=(600,), daemon=True)]
    for process in processes:
        process.start()
    for _ in range(2):
        assert ours.poll(60)
        ours.recv()
    parallel._end(processes)
    assert [process.exitcode for process in processes] == [-signal.SIGKILL, -signal.SIGKILL, -signal.SIGTERM]


@pytest.mark.parametrize("status", [1, -signal.SIGKILL])
def test_the_first_worker_that_fails_ends_the_waiting(status: int) -> None:
    errors = [FORK.SimpleQueue(), FORK.SimpleQueue()]
    errors[1].put("Traceback\n  somewhere\nValueError: cannot be shared\n")
    failing = FORK.Process(target=sys.exit, args=(1,)) if status > 0 else FORK.Process(target=signal.pause)
    processes = [FORK.Process(target=time.sleep, args=(600,), daemon=True), failing]
    for process in processes:
        process.start()
    if status < 0:
        failing.kill()
    reason = "ValueError: cannot be shared" if status > 0 else "its status is -9"
    with pytest.raises(TrainingError, match=f"a worker failed: {reason}"):
        parallel._wait(processes, errors)
    assert processes[0].is_alive()
    parallel._end(processes)


def test_workers_that_end_well() -> None:
    processes = [FORK.Process(target=time.sleep, args=(0,)) for _ in range(2)]
    for process in processes:
        process.start()
    parallel._wait(processes, [FORK.SimpleQueue(), FORK.SimpleQueue()])
