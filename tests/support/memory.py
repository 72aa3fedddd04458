"""Measures memory of this process, on Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

mapped_pages = pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="counts a mapping's pages on Linux"
)


def resident(path: Path) -> int:
    """The part of a memory-mapped file that is in memory, in kB."""
    _, *mappings = Path("/proc/self/smaps").read_text().split(f"{path}\n")
    assert mappings
    return sum(int(mapping.split("Rss:")[1].split()[0]) for mapping in mappings)
