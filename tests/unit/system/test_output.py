"""Places for results are looked at before the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_common.errors import RequestError
from clip_common.system.output import require_file, require_folder


def test_what_can_be_written_and_is_not_made(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "new" / "below"):
        require_folder(folder)
        require_file(folder / "file")
    (tmp_path / "file").write_text("")
    require_file(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_relative_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    require_folder(Path("new/below"))
    require_file(Path("new.txt"))


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for place, words in {
        "file": "file is a file, not a folder",
        "file/below": f"file/below cannot be: {tmp_path}/file is a file, not a folder",
        "file/below/that": f"{tmp_path}/file is a file, not a folder",
        "link": "link is a link that leads nowhere",
        "link/below": "link is a link that leads nowhere",
        "circle": r"circle cannot be written \(Too many",
        "x" * 300: r"x cannot be written \(File name too long",
    }.items():
        with pytest.raises(RequestError, match=f"{words}.*: choose another place"):
            require_folder(tmp_path / place)
    with pytest.raises(RequestError, match="is a folder, not a file: choose another place"):
        require_file(tmp_path)
    with pytest.raises(RequestError, match="file is a file, not a folder"):
        require_file(tmp_path / "file" / "below")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):  # root may
        locked = Path("/proc/self")
    for place in (locked, locked / "new"):
        with pytest.raises(RequestError, match=r"cannot be written \(.+\): choose another place"):
            require_folder(place)
