"""Arrays that are views of a mapped file, which takes memory only where it has been read."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np


def release(value: np.ndarray) -> None:
    """Give back the memory of an array that is a view of a mapped file; it can still be read."""
    owner: Any = value
    while (base := getattr(owner, "base", None)) is not None:  # also of what stands between strided views
        owner = base
    mapped = owner.obj if isinstance(owner, memoryview) else owner
    if not isinstance(mapped, mmap.mmap) or not hasattr(mapped, "madvise") or value.nbytes < mmap.PAGESIZE:
        return
    begins = value.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    start = begins - begins % mmap.PAGESIZE
    mapped.madvise(mmap.MADV_DONTNEED, start, begins + value.nbytes - start)
