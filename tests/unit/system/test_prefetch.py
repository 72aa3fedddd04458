"""Work in threads before whoever uses the results."""

from __future__ import annotations

import threading

import pytest

from clip_common.system import prefetch as module
from clip_common.system.prefetch import UnreadError, prefetch, sleep


def test_results_come_in_order() -> None:
    assert list(prefetch(lambda number: number * 2, range(50), 4)) == list(range(0, 100, 2))


def test_an_error_is_that_of_its_item() -> None:
    results = prefetch(lambda number: 1 // number, [1, 1, 0, 1], 1)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_who_stops_early_is_not_kept_waiting() -> None:
    """The garbage collector closes what an error left, in any thread, even one that must not wait."""
    go_on, begun = threading.Event(), []

    def make(number: int) -> int:
        begun.append(number)
        if number:
            assert go_on.wait(60)
        return number

    results = prefetch(make, range(100), 8)
    assert next(results) == 0
    closing = threading.Thread(target=results.close, daemon=True)
    closing.start()
    closing.join(20)
    waits = closing.is_alive()
    go_on.set()
    closing.join(60)
    assert not waits
    assert len(begun) <= 9  # what had not begun never does


def test_who_waits_for_something_else_gives_up_where_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process ends no sooner than these threads: after Ctrl-C it would wait for all of their waits."""
    waits, ends, go_on = threading.Event(), [], threading.Event()

    def slept(seconds: float) -> None:
        waits.set()
        assert go_on.wait(60)

    def make(number: int) -> int:
        if number:
            try:
                sleep(1e9)
            except UnreadError as error:
                ends.append(error)
        return number

    monkeypatch.setattr(module.time, "sleep", slept)
    results = prefetch(make, [0, 1], 1)
    assert next(results) == 0
    assert waits.wait(60)
    results.close()
    go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("clip-prepare"):
            thread.join(60)
    assert len(ends) == 1


def test_where_nothing_is_prefetched_a_sleep_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    sleep(7)
    assert slept == [7]
