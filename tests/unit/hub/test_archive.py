"""The bytes of a packed archive."""

from __future__ import annotations

import tarfile
from pathlib import Path

from clip_common.hub import pack


def test_what_differs_in_an_archive_differs_in_time(tmp_path: Path) -> None:
    """Whatever remembers files by size and time, as Python does for what it compiled, sees another file."""
    (tmp_path / "one").write_bytes(b"weights 1")
    (tmp_path / "two").write_bytes(b"weights 2")
    times = set()
    for name in ("one", "two"):
        for archive in ("a.tar.gz", "b.tar.gz"):
            pack._write({"module.py": b"same", "w.safetensors": tmp_path / name}, tmp_path / archive)
        assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
        with tarfile.open(tmp_path / "a.tar.gz") as opened:
            times.add(tuple(member.mtime for member in opened.getmembers()))
    (first, *_), (second, *_) = times
    assert first == second  # of what is the same
    assert len({weights for _, weights in times}) == 2
    assert all(1_000_000_000 <= time < 1_500_000_000 for pair in times for time in pair)
