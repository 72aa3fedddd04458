"""Work in threads, in order, a bounded way before whoever uses the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from . import threads

Given = TypeVar("Given")
Made = TypeVar("Made")


def prefetch(make: Callable[[Given], Made], given: Iterable[Given], batch_size: int) -> Iterator[Made]:
    """`map`, up to two batches ahead: images are prepared while the model works on the batch before."""
    workers = min(threads.count(), batch_size)
    coming: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(workers, "clip-prepare") as pool:
        try:
            for item in given:
                coming.append(pool.submit(make, item))
                if len(coming) > 2 * batch_size:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:  # the reader may stop early, at an error
            pool.shutdown(cancel_futures=True)
