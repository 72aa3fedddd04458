"""Arrays that are views of a memory-mapped file, of which only pages that have been read take memory."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np


def release(value: np.ndarray) -> None:
    """Release the memory of an array that is a view of a mapped file. It can still be read, from the file."""
    owner: Any = value
    while (base := getattr(owner, "base", None)) is not None:  # also through intermediate views
        owner = base
    mapped = owner.obj if isinstance(owner, memoryview) else owner
    if not isinstance(mapped, mmap.mmap) or not hasattr(mapped, "madvise") or value.nbytes < mmap.PAGESIZE:
        return
    begins = value.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    start = begins - begins % mmap.PAGESIZE
    mapped.madvise(mmap.MADV_DONTNEED, start, begins + value.nbytes - start)
