"""Paddle's mode, dynamic or static graph. It is each thread's own, and not always what one expects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import paddle


@contextlib.contextmanager
def dynamic_graph() -> Iterator[None]:
    """Dynamic graph in this thread, and afterwards what was there before.

    Another hub module may have left static mode behind; and where a thread was the first to import Paddle,
    all the others, the main one too, are in static mode.
    """
    static = not paddle.in_dynamic_mode()
    if static:
        paddle.disable_static()
    try:
        yield
    finally:
        if static:
            paddle.enable_static()
