"""Waits for events, with a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], object], *tasks: asyncio.Task) -> None:
    """Wait until a condition holds; fails if a task ends before, or after a minute."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 60
    while not holds():
        for task in tasks:
            assert not task.done(), task.result()
        assert loop.time() < end, "nothing came of it within a minute"
        await asyncio.sleep(0.001)
