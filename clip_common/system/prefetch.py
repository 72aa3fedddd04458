"""Work in threads, in order, a bounded way before whoever uses the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from . import threads

Given = TypeVar("Given")
Made = TypeVar("Made")


def prefetch(
    make: Callable[[Given], Made], given: Iterable[Given], batch_size: int, waiting: int = 0
) -> Iterator[Made]:
    """`map`, up to two batches ahead: images are prepared while the model works on the batch before.

    Args:
        make: runs in threads.
        given: what it is called with.
        batch_size: see above.
        waiting: threads to have at least, as what they mostly do is wait for other machines.
    """
    workers = min(threads.count(), batch_size) if not waiting else max(threads.count(), waiting)
    coming: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(workers, "clip-prepare") as pool:
        try:
            for item in given:
                coming.append(pool.submit(make, item))
                if len(coming) > 2 * max(batch_size, waiting):
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:  # the reader may stop early, at an error
            pool.shutdown(cancel_futures=True)
