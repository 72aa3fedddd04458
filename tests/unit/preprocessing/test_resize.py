"""Which code resizes, and what is said where the faster one cannot be used."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from clip_common.preprocessing import compiled_resize
from clip_common.preprocessing.resize import Compiled


def test_a_full_disk_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(compiled_resize, "AVAILABLE", True)
    monkeypatch.setattr(compiled_resize, "equals_pillow", fails)
    Compiled().load()
    assert caplog.messages == [
        f"numba cannot be used ({tmp_path}/numba: the disk is full: free some space, or choose another "
        "place); Pillow resizes, which takes longer"
    ]
