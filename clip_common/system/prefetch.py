"""Work in threads, in order, a bounded way before whoever uses the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from . import threads

Given = TypeVar("Given")
Made = TypeVar("Made")


def prefetch(
    make: Callable[[Given], Made], given: Iterable[Given], batch_size: int, waiting: int = 0
) -> Generator[Made, None, None]:
    """`map`, up to two batches ahead: images are prepared while the model works on the batch before.

    Whoever stops reading early is not kept waiting: what has not begun is left out, what has ends by itself.

    Args:
        make: runs in threads.
        given: what it is called with.
        batch_size: see above.
        waiting: threads to have at least, as what they mostly do is wait for other machines.
    """
    workers = min(threads.count(), batch_size) if not waiting else max(threads.count(), waiting)
    coming: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(workers, "clip-prepare")
    try:
        for item in given:
            coming.append(pool.submit(make, item))
            if len(coming) > 2 * max(batch_size, waiting):
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        # Never joined: after an error the garbage collector may close this, in whatever thread it runs. In
        # one that is just starting, the lock that a join takes is already held (threading.Thread._stop).
        pool.shutdown(wait=False, cancel_futures=True)
