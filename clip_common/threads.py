"""Processor threads, settled once, before the first matrix product, without the user setting anything.

As it comes Paddle runs on one thread, its bundled mklml takes a slow path on AMD (PaddlePaddle/Paddle#75760),
and its idle threads spin, which brings it to its knees beside any other busy process. On a two-core AMD
machine this makes the image towers two to three times faster.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import paddle


@cache
def settle() -> None:
    """Use the processor well; whatever the user has set in the environment stays as it is.

    Effective only before the libraries start, that is before the process multiplies its first matrices.
    """
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # idle threads sleep
    if _is_amd_with_avx2():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")  # the AVX2 path, which it keeps for Intel
    if "OMP_NUM_THREADS" not in _environment_at_start() and hasattr(os, "sched_getaffinity"):
        paddle.base.core.set_num_threads(len(os.sched_getaffinity(0)))


def _is_amd_with_avx2() -> bool:
    description = _read(Path("/proc/cpuinfo"))
    return "AuthenticAMD" in description and " avx2 " in description


def _environment_at_start() -> set[str]:
    """Names the process was started with: Paddle sets OMP_NUM_THREADS itself when it is imported."""
    return {entry.split("=", 1)[0] for entry in _read(Path("/proc/self/environ")).split("\0")}


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:  # not Linux
        return ""
