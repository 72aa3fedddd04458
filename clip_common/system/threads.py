"""CPU threads of Paddle, configured once before its first matrix product; and a helper for time limits.

By default Paddle uses one thread, its bundled mklml takes a slow path on AMD (PaddlePaddle/Paddle#75760), and
its idle threads spin, which is very slow beside another busy process. On a two-core AMD machine this
configuration makes the image towers two to three times faster.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import TypeVar

from . import cpu

Made = TypeVar("Made")


@cache
def configure() -> None:
    """Configure Paddle's threads; environment variables that the user has set take precedence.

    Must be called before the process computes its first matrix product.
    """
    import paddle

    os.environ.setdefault("KMP_BLOCKTIME", "0")  # idle threads sleep
    if cpu.is_amd() and "avx2" in cpu.features():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")  # the AVX2 path, by default for Intel only
    paddle.base.core.set_num_threads(count())


def count() -> int:
    """Threads to compute with: OMP_NUM_THREADS if set, else the CPUs that this process may use."""
    chosen = _environment_at_start().get("OMP_NUM_THREADS", "").partition(",")[0]  # a value per nesting level
    if chosen.isdecimal() and int(chosen) > 0:
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ends_within(seconds: float, action: Callable[[], object]) -> bool:
    """Run an action in a daemon thread; returns whether it ended in time. If not, it keeps running."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def run_in_thread(action: Callable[[], Made]) -> Future[Made]:
    """Run an action that may never end in a daemon thread, so that the process can end without it."""
    result: Future[Made] = Future()
    result.set_running_or_notify_cancel()  # from here on nobody can cancel it
    threading.Thread(target=_settle, args=(result, action), daemon=True).start()
    return result


def _settle(result: Future[Made], action: Callable[[], Made]) -> None:
    try:
        result.set_result(action())
    except BaseException as error:
        result.set_exception(error)
    finally:
        del result  # otherwise an error would be in a reference cycle through this frame


def _environment_at_start() -> dict[str, str]:
    """The environment that the process was started with: importing Paddle sets OMP_NUM_THREADS."""
    try:
        entries = Path("/proc/self/environ").read_text("utf-8", "replace").split("\0")
    except OSError:  # not Linux
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
