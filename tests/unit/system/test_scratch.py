"""Temporary folders end with their use, or are swept up after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_common.system.scratch import scratch_folder
from tests.support.paths import ROOT

KILLED = """
import os, signal
from clip_common.system.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "weights").write_bytes(b"many")
    os.kill(os.getpid(), signal.SIGKILL)
"""
ENDED = "from clip_common.system.scratch import scratch_folder_of_process as make; print(make())"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    monkeypatch.setattr(tempfile, "tempdir", None)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def make_old(*folders: Path) -> None:
    for folder in folders:
        os.utime(folder, (time.time() - 2 * 24 * 3600,) * 2)


def test_it_ends_with_the_block_and_with_the_process(place: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == place and folder.is_dir()
    made = run(ENDED)
    assert made.startswith(str(place))
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_swept_when_it_is_old(place: Path) -> None:
    run(KILLED)
    (left,) = place.iterdir()
    with scratch_folder():
        assert left.exists()  # it may be of a moment ago
    make_old(left)
    with scratch_folder() as folder:
        assert list(place.iterdir()) == [folder]


def test_nothing_else_is(place: Path) -> None:
    used, others = place / "clip_hub_vectors", place / "clip_hub_scratch_of_mine"
    for folder in (used, others):
        folder.mkdir()
        (folder / ".lock").touch()  # as `embed` has one in its store
        make_old(folder)
    with scratch_folder() as running:
        make_old(running)
        with scratch_folder():
            assert running.exists()  # old, and in use
    assert {path.name for path in place.iterdir()} == {used.name, others.name}


def test_another_users_are_not(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(KILLED)
    (left,) = place.iterdir()
    make_old(left)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with scratch_folder():
        assert left.exists()
