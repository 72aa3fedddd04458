"""Places for results are looked at before the work, and files appear whole."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from clip_common.errors import RequestError
from clip_common.system.output import atomic_file, held_folder, require_file, require_folder


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
        "link": "link is a broken symbolic link",
        "link/below": "link is a broken symbolic link",
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


# --- files that appear whole --------------------------------------------------------------------------


def write_and_wait(target: Path, told: Connection) -> None:
    with atomic_file(target) as temporary:
        temporary.write_bytes(b"half")
        told.send(temporary)
        told.recv()


def test_what_a_killed_process_left_is_swept_up_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    (tmp_path / ".unfinished").write_text("a file of the user's")
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=write_and_wait, args=(tmp_path / "theirs", theirs))
    process.start()
    assert ours.poll(60)
    left = ours.recv()
    with atomic_file(tmp_path / "ours"):
        assert left.read_bytes() == b"half"
    process.kill()
    process.join(60)
    assert left.exists()
    with atomic_file(tmp_path / "ours"):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == [".unfinished", "ours"]


def test_a_name_is_given_to_what_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    def noted(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            happened.append(name)
            return real(*args)

        return call

    monkeypatch.setattr(os, "fsync", noted("fsync", os.fsync))
    monkeypatch.setattr(Path, "replace", noted("rename", Path.replace))
    with atomic_file(tmp_path / "file") as temporary:
        temporary.write_bytes(b"content")
    assert happened == ["fsync", "rename"]


@pytest.mark.parametrize(
    "error",
    [
        OSError("8388608 requested and 0 written"),
        OSError(28, "No space left on device"),
        OSError(27, "File too large"),
    ],
    ids=["numpy's", "the system's", "a limit's"],
)
def test_what_cannot_be_written_is_named(error: OSError, tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised, atomic_file(tmp_path / "figures.npz"):
        raise error
    assert str(tmp_path / "figures.npz") in str(raised.value)
    remedies = (
        "is the disk full?",
        "the disk is full: free some space",
        "see `ulimit -f`, or choose another place",
    )
    assert any(remedy in str(raised.value) for remedy in remedies)
    assert not list(tmp_path.iterdir())


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    with atomic_file(tmp_path / ("x" * 255)) as temporary:
        temporary.write_bytes(b"content")
    assert [file.name for file in tmp_path.iterdir()] == ["x" * 255]


def test_a_file_that_is_not_written_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for folder in (tmp_path / "new" / "below", tmp_path / "old" / "new", tmp_path / "old"):
        with pytest.raises(ValueError, match="not today"), atomic_file(folder / "file") as temporary:
            temporary.write_bytes(b"half")
            raise ValueError("not today")
    with pytest.raises(OSError), atomic_file(tmp_path / "new" / ("x" * 300) / "file"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["old"]


# --- folders of one process ----------------------------------------------------------------------------


def hold_and_wait(folder: Path, told: Connection) -> None:
    with held_folder(folder):
        told.send("held")
        told.recv()


def test_a_folder_is_one_process_alone_until_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold_and_wait, args=(folder, theirs))
    process.start()
    assert ours.poll(60)
    with (
        pytest.raises(RequestError, match=f"another process is writing into {folder}: wait"),
        held_folder(folder),
    ):
        raise AssertionError("two hold it")
    assert folder.is_dir()
    process.kill()
    process.join(60)
    with held_folder(folder):
        (folder / "file").write_text("")
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_folder_into_which_nothing_was_put_goes_again(tmp_path: Path) -> None:
    for folder in (tmp_path / "new" / "run", tmp_path):
        with pytest.raises(ValueError, match="not today"), held_folder(folder):
            assert folder.is_dir()
            raise ValueError("not today")
    (tmp_path / "file").write_text("")
    for folder, words in ((tmp_path / "file", "File exists"), (tmp_path / "a" / ("x" * 300), "too long")):
        with pytest.raises(RequestError, match=rf"cannot be written \(.*{words}"), held_folder(folder):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
