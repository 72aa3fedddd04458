"""Hashes that follow the content, files that appear whole, and keys that follow the code."""

from __future__ import annotations

import errno
import hashlib
import os
import pwd
import shutil
from pathlib import Path
from typing import BinaryIO

import pytest

from clip_common.system import cache


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as unchanged for long at once."""
    monkeypatch.setattr(cache, "_TICKS", -1_000_000_000)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- hashes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["replaced", "written over", "copied over"])
def test_another_content_of_equal_size_and_time_has_another_hash(
    how: str, settled: None, tmp_path: Path
) -> None:
    """As `hub install` of a second archive, `rsync -t` and `cp -p` leave it."""
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_bytes(b"one"), other.write_bytes(b"two")
    for path in (file, other):
        os.utime(path, (0, 0))
    assert cache.sha256_of(file) == digest(b"one")
    if how == "replaced":
        other.replace(file)
    elif how == "copied over":
        shutil.copy2(other, file)
    else:
        file.write_bytes(b"two")
        os.utime(file, (0, 0))
    assert file.stat().st_mtime_ns == 0
    assert cache.sha256_of(file) == digest(b"two")


def test_a_file_that_changed_a_moment_ago_is_not_remembered(tmp_path: Path, folder: Path) -> None:
    """Within one tick of its clock it could change again, and be the same by all that can be seen."""
    file = tmp_path / "file"
    file.write_bytes(b"one")
    assert cache.sha256_of(file) == digest(b"one")
    assert not (folder / "hashes").exists()


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(
    settled: None, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, real = tmp_path / "file", cache.hash_stream
    file.write_bytes(b"one")

    def slow(stream: BinaryIO) -> str:
        found = real(stream)
        (tmp_path / "new").write_bytes(b"two")
        (tmp_path / "new").replace(file)
        return found

    monkeypatch.setattr(cache, "hash_stream", slow)
    cache.sha256_of(file)
    assert not (folder / "hashes").exists()


def test_pruning_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (tmp_path / f"{number}").write_bytes(b"x")
        os.utime(tmp_path / f"{number}", (number, number))
    listed = list(tmp_path.iterdir())
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(listed))
    (tmp_path / "3").unlink()
    cache.prune(tmp_path, 2)
    assert [file.name for file in listed if file.exists()] == [
        file.name for file in listed if file.name in ("2", "4")
    ]


# --- no home ------------------------------------------------------------------------------------------


def test_a_user_without_a_name_or_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "CLIP_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert cache.cache_dir() == Path("/nonexistent/.cache/clip_hub")
    monkeypatch.setenv("CLIP_HUB_CACHE", "~nobody_is_called_so/cache")
    assert cache.cache_dir() == Path("~nobody_is_called_so/cache")


# --- keys ---------------------------------------------------------------------------------------------


def test_a_key_follows_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "package" / "system" / "cache.py"))
    folder = tmp_path / "package" / "models"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "a.py").write_text("one")

    def found() -> str:
        cache.source_digest.cache_clear()
        return cache.source_digest("models")

    first = found()
    (folder / "__pycache__" / "a.pyc").write_bytes(b"compiled")
    (tmp_path / "package" / "other.py").write_text("of no concern")
    assert found() == first
    (folder / "a.py").write_text("two")
    second = found()
    (folder / "a.py").rename(folder / "b.py")
    assert len({first, second, found()}) == 3
    cache.source_digest.cache_clear()


def test_a_version_of_what_is_not_installed() -> None:
    (installed, missing) = cache.versions("numpy", "no-such-distribution")
    assert installed and missing is None


def test_a_full_disk_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path))
    with cache.best_effort("a hash"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caplog.messages == [
        f"a hash is not kept in the cache {tmp_path} (the disk is full: free some space, or choose another "
        "place); set CLIP_HUB_CACHE to a folder that can be written"
    ]
