"""Waiting for what happens in its own time, but not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], object], *tasks: asyncio.Task) -> None:
    """Wait for what tasks bring about; one that ends before it does is shown."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 60
    while not holds():
        for task in tasks:
            assert not task.done(), task.result()
        assert loop.time() < end, "nothing came of it within a minute"
        await asyncio.sleep(0.001)
