"""Switch Paddle to dynamic graph mode, whatever mode the current thread is in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import paddle


@contextlib.contextmanager
def dynamic_graph() -> Iterator[None]:
    """Use dynamic graph mode in this thread, and restore the mode afterwards.

    The mode is per thread. It may be static because another hub module left it so; and if Paddle was first
    imported in a thread, all other threads, even the main one, are in static mode.
    """
    static = not paddle.in_dynamic_mode()
    if static:
        paddle.disable_static()
    try:
        yield
    finally:
        if static:
            paddle.enable_static()
