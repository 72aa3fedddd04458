"""What takes too long is not waited for."""

from __future__ import annotations

import threading

from clip_common.system.threads import within


def test_what_ends_in_time_and_what_does_not() -> None:
    done: list[str] = []
    assert within(60, lambda: done.append("it"))
    assert done == ["it"]
    never = threading.Event()
    assert not within(0.05, never.wait)
    never.set()
