"""Work in threads before whoever uses the results."""

from __future__ import annotations

import threading

import pytest

from clip_common.system.prefetch import prefetch


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
