"""A parallel `map` in threads that runs a bounded number of items ahead of its consumer."""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from . import threads

Given = TypeVar("Given")
Made = TypeVar("Made")

_AWAKE = 0.5  # seconds after which a thread that waits looks whether its results are read


class UnreadError(OSError):
    """Nobody reads what `prefetch` makes any more."""


class _Reader:
    """Whoever reads results.

    No event tells that it has gone: the garbage collector may find that out in a thread that is just looking,
    and so holds the event's lock.
    """

    gone = False


_mine = threading.local()  # of a thread of `prefetch`'s: its reader


def prefetch(
    make: Callable[[Given], Made], given: Iterable[Given], batch_size: int, waiting: int = 0
) -> Generator[Made, None, None]:
    """`map` in threads, in order, up to two batches ahead: images are prepared while the model runs.

    A consumer that stops early is not blocked: pending calls are cancelled, running ones end by themselves.

    Args:
        make: function to call in threads.
        given: its arguments.
        batch_size: number of results that the consumer takes at once.
        waiting: minimum number of threads, for a function that mostly waits for other machines.
    """
    workers = min(threads.count(), batch_size) if not waiting else max(threads.count(), waiting)
    coming: deque[Future[Made]] = deque()
    reader = _Reader()
    pool = ThreadPoolExecutor(workers, "clip-prepare", partial(setattr, _mine, "reader"), (reader,))
    try:
        for item in given:
            coming.append(pool.submit(make, item))
            if len(coming) > 2 * max(batch_size, waiting):
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        reader.gone = True
        # Never joined: after an error the garbage collector may close this, in whatever thread it runs. In
        # one that is just starting, the lock that a join takes is already held (threading.Thread._stop).
        pool.shutdown(wait=False, cancel_futures=True)


def sleep(seconds: float) -> None:
    """Wait; in what `prefetch` runs, only for as long as its results are read: a process ends no sooner than
    those threads do.

    Raises:
        UnreadError: they are not.
    """
    reader: _Reader | None = getattr(_mine, "reader", None)
    while reader and seconds > _AWAKE:
        require_reader()
        time.sleep(_AWAKE)
        seconds -= _AWAKE
    time.sleep(seconds)
    require_reader()


def require_reader() -> None:
    """Check, in what `prefetch` runs, that its results are read.

    Raises:
        UnreadError: they are not any more.
    """
    if getattr(getattr(_mine, "reader", None), "gone", False):
        raise UnreadError(errno.ECANCELED, "nobody waits for it any more")
