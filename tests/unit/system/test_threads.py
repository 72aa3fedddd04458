"""What takes too long is not waited for."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from clip_common.system.threads import ends_within, run_in_thread


def test_what_ends_in_time_and_what_does_not() -> None:
    done: list[str] = []
    assert ends_within(60, lambda: done.append("it"))
    assert done == ["it"]
    never = threading.Event()
    assert not ends_within(0.05, never.wait)
    never.set()


def test_what_runs_beside_all_else_gives_its_result_or_its_error() -> None:
    assert run_in_thread(lambda: 1).result(60) == 1
    with pytest.raises(ZeroDivisionError):
        run_in_thread(lambda: 1 // 0).result(60)
    never = threading.Event()
    run_in_thread(never.wait)
    (waiting,) = (thread for thread in threading.enumerate() if "_settle" in thread.name)
    assert waiting.daemon  # the process ends without it
    never.set()


def test_an_error_beside_all_else_holds_nothing_longer_than_itself() -> None:
    class LargeError(Exception):
        pass

    def fail() -> None:
        raise LargeError

    gc.collect()
    gc.disable()  # what goes away does so by itself
    try:
        result = run_in_thread(fail)
        error = result.exception(60)
        for thread in threading.enumerate():
            if "_settle" in thread.name:
                thread.join(60)
        gone = weakref.ref(error)
        del error, result
        assert gone() is None
    finally:
        gc.enable()
