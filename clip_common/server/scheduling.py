"""Who gets the model, and when: places for prepared images, turns for long work, how long requests wait."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..errors import BusyError

TURN = 0.5
"""Seconds of the model for one request's long work, before others get their turn."""


class Turns:
    """An encoder for the long work on one request: its parts queue for the model like everybody's batches.

    Args:
        model: where they queue.
        encode: what a part goes through.
        least: how much a part has at least, and the first one.
        most: how much it has at most.
        deadline: the time of the clock at which the work is given up.
        total: how much there will be in all, where that is known: what cannot be done in time ends early.
    """

    def __init__(
        self,
        model: ThreadPoolExecutor,
        encode: Callable[[Any], np.ndarray],
        least: int,
        most: int,
        deadline: float,
        total: int = 0,
    ) -> None:
        self._model, self._encode, self._deadline = model, encode, deadline
        self._least, self._most, self._size = least, most, least
        self._total = self._left = total
        self._seconds_each: deque[float] = deque(maxlen=2)
        self._ended = threading.Event()

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def __call__(self, items: Any) -> np.ndarray:
        """Features of texts or images, [n, d]; raises `BusyError` where it is too late for them."""
        parts: list[np.ndarray] = []
        start = 0
        while start < len(items):
            if self._ended.is_set() or self._deadline < time.time():
                raise late()
            part = items[start : start + self._size]
            features, seconds = self._model.submit(_timed, self._encode, part).result()
            parts.append(features)
            start += len(part)
            self._learn(len(part), seconds)
        return np.concatenate(parts)

    def _learn(self, count: int, seconds: float) -> None:
        self._size = min(self._most, max(self._least, int(count * TURN / max(seconds, 1e-6))))
        if not self._total:
            return
        self._left -= count
        self._seconds_each.append(seconds / count)
        each = min(self._seconds_each)  # of two parts: one may have met with something else
        if len(self._seconds_each) == 2 and time.time() + self._left * each > self._deadline:
            raise BusyError(
                f"heat maps take about {self._total * each:.0f} s here, more than is left until the deadline"
            )


def _timed(encode: Callable[[Any], np.ndarray], part: Any) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    return encode(part), time.perf_counter() - start


class Places:
    """So many places; who wants several waits for them, and whoever comes later waits behind."""

    def __init__(self, count: int) -> None:
        self._count = self._free = count
        self._queue, self._changed = asyncio.Lock(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def taken(self, wanted: int) -> AsyncIterator[None]:
        """While places are taken; more than there are means all."""
        wanted = min(wanted, self._count)
        async with self._queue:
            while self._free < wanted:
                self._changed.clear()
                await self._changed.wait()
            self._free -= wanted
        try:
            yield
        finally:
            self._free += wanted
            self._changed.set()


def late() -> BusyError:
    """What a request gets whose deadline has passed."""
    return BusyError("the request was not answered within its deadline")


class LoadEstimator:
    """How long a module's requests wait, judged by the last ones: latency over how many were under way."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._seconds_each: deque[float] = deque(maxlen=16)

    def expected(self) -> float:
        """Seconds that one more request would take; where none is under way it is always let in."""
        if not self.in_flight or not self._seconds_each:
            return 0.0
        return (self.in_flight + 1) * statistics.median(self._seconds_each)

    @contextlib.contextmanager
    def in_flight_request(self, aside: float = 0.0) -> Iterator[None]:
        """While a request is under way; one that fails says nothing about the load.

        Args:
            aside: seconds that it may wait for something else, however many are under way.
        """
        self.in_flight += 1
        among, start = self.in_flight, time.perf_counter()
        try:
            yield
            self._seconds_each.append(max(0.0, time.perf_counter() - start - aside) / among)
        finally:
            self.in_flight -= 1
