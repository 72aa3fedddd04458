"""Share the model among requests: batches, slots for prepared images, time slices, load estimates."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np

from ..errors import BusyError

Given = TypeVar("Given")

TURN = 0.5
"""Length of a time slice, in seconds, of long work on one request."""


class Batcher(Generic[Given]):
    """Forms batches: requests that arrive while a batch is processed form the next one.

    Ray Serve's batching forms a batch every few milliseconds, even while the model is busy: under load, its
    batches are small and queue behind each other.

    Args:
        work: computes the results of a batch, one per request.
        most: maximum size of a batch.
        wait: seconds that a request waits for others if no batch is being processed.
    """

    def __init__(self, work: Callable[[list[Given]], Awaitable[list[Any]]], most: int, wait: float) -> None:
        self._work, self._most, self._wait = work, most, wait
        self._waiting: deque[tuple[Given, asyncio.Future]] = deque()
        self._running: asyncio.Task | None = None

    async def ask(self, given: Given) -> Any:
        """Compute the result of one request; raises what its batch raises."""
        result = asyncio.get_running_loop().create_future()
        self._waiting.append((given, result))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await result

    async def _run(self) -> None:
        """Process batches until no request waits; if this fails, waiting requests are cancelled."""
        try:
            await asyncio.sleep(self._wait)
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                if batch := [(given, result) for given, result in batch if not result.done()]:
                    await self._answer(batch)
        finally:
            self._running = None
            while self._waiting:
                self._waiting.popleft()[1].cancel()

    async def _answer(self, batch: list[tuple[Given, asyncio.Future]]) -> None:
        """Process a batch, and set the results or the error of its requests."""
        try:
            results = await self._work([given for given, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        finally:
            for _, future in batch:
                future.cancel()  # no effect on a future that is done


class Turns:
    """An encoder for long work on one request, in time slices between which other requests are served.

    Its parts wait in the model's queue like the batches of other requests.

    Args:
        model: executor with the thread of the model.
        encode: encodes one part.
        least: minimum number of items in a part, and the size of the first one.
        most: maximum number of items in a part.
        deadline: time (`time.time()`) at which the work is given up.
        total: total number of items, if known: work that cannot meet the deadline is then given up early.
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
        """Encode texts or images to features, [n, d]; raises `BusyError` if the deadline cannot be met."""
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
        each = min(self._seconds_each)  # the faster of two parts: one may have been disturbed
        if len(self._seconds_each) == 2 and time.time() + self._left * each > self._deadline:
            raise BusyError(
                f"heat maps take about {self._total * each:.0f} s here, more than is left until the deadline"
            )


def _timed(encode: Callable[[Any], np.ndarray], part: Any) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    return encode(part), time.perf_counter() - start


class Places:
    """A fair semaphore that can be acquired several times at once; waiters are served in order."""

    def __init__(self, count: int) -> None:
        self._count = self._free = count
        self._queue, self._changed = asyncio.Lock(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def taken(self, wanted: int) -> AsyncIterator[None]:
        """Hold `wanted` places while the context is active; at most all of them."""
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
    """The error for a request whose deadline has passed."""
    return BusyError("the request was not answered within its deadline")


class LoadEstimator:
    """Estimates the latency of a request, from the last ones: latency divided by requests in flight."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._seconds_each: deque[float] = deque(maxlen=16)

    def expected(self) -> float:
        """Expected latency of one more request, in seconds; 0 if no request is in flight."""
        if not self.in_flight or not self._seconds_each:
            return 0.0
        return (self.in_flight + 1) * statistics.median(self._seconds_each)

    @contextlib.contextmanager
    def in_flight_request(self, aside: float = 0.0) -> Iterator[None]:
        """Count a request while the context is active, and measure it unless it fails.

        Args:
            aside: seconds of its latency that do not depend on the number of requests in flight.
        """
        self.in_flight += 1
        among, start = self.in_flight, time.perf_counter()
        try:
            yield
            self._seconds_each.append(max(0.0, time.perf_counter() - start - aside) / among)
        finally:
            self.in_flight -= 1
