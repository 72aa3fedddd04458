"""Every verb that writes says in one line which file the disk is too full for, and leaves nothing of it."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from clip_common.cli import prediction
from clip_common.cli.main import main
from clip_common.config import pretrained
from clip_common.embedding.parts import Job
from clip_common.embedding.store import Store
from clip_common.hub import run_command
from clip_common.predictor import Predictor
from clip_common.search.file_index import FileIndex
from clip_common.system import output
from tests.support.paths import EXAMPLES, ROOT
from tests.support.stores import run

DOG = str(EXAMPLES / "dog.png")
MINI = ROOT / "modules" / "clip_mini" / "clip_mini.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in classes, embeddings of them, and an index, from before the disk was full."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("cat", "dog"):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(5):
            shutil.copy(EXAMPLES / f"{name}.png", folder / "images" / name / f"{number}.png")
    run(folder / "images", folder / "store", job=Job(pretrained("clip_mini")))
    FileIndex(str(folder / "index")).sync(Store(folder / "store"))
    return folder


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    """The disk has no room for what is written from now on, which is found out when it is to arrive there."""
    Predictor("clip_mini").classify(paths=[DOG], labels=["dog", "cat"])  # what is cached is there

    def fails(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(output, "sync", fails)
    monkeypatch.setattr(prediction, "heat_maps", lambda *_: [np.ones((7, 7))] * 2)  # which take seconds


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("search dog --index {made}/index --output_dir {new}", "search.png"),
        ("duplicates {made}/store --output_dir {new}", "duplicates.png"),
        ("classify {dog} --labels dog,cat --visualization --output_dir {new}", "0001_dog.png"),
        ("classify {dog} --labels dog,cat --explain --output_dir {new}", "0001_dog_explained.png"),
        ("evaluate {made}/images --output_dir {new}", "figures.json"),
        ("evaluate {made}/images --thresholds {new}/t.json", "t.json"),
        ("index {made}/store --index {new}/index", "index"),
        ("embed {made}/images --output {new}", "root"),
        ("weights convert {mini} {new}/w.safetensors", "w.safetensors"),
    ],
)
def test_a_full_disk_is_one_line(
    command: str, file: str, full: None, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    argv = [word.format(made=made, new=new, mini=MINI, dog=DOG) for word in command.split()]
    assert main(argv) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("clip-hub")]
    assert line.startswith(f"clip-hub {argv[0]}: ") and str(new / file) in line
    assert "the disk is full: free some space, or choose another place" in line
    assert not new.exists()


def test_a_sheet_of_clusters(
    full: None, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    argv = ["clusters", str(made / "store"), "--clusters", "2", "--labels", "dog,cat"]
    assert main([*argv, "--output_dir", str(tmp_path)]) == 1
    assert f"clip-hub clusters: {tmp_path / 'clusters.png'}: the disk is full" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_plot_beside_thresholds(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There was room for the file, and is none for its plot."""
    real = output.sync

    def fails(path: Path) -> None:
        if path.read_bytes().startswith(b"\x89PNG"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path)

    monkeypatch.setattr(output, "sync", fails)
    assert main(["evaluate", str(made / "images"), "--thresholds", str(tmp_path / "t.json")]) == 1
    assert f"clip-hub evaluate: {tmp_path / 't.png'}: the disk is full" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def test_matplotlib_writes_files_in_one_place() -> None:
    for file in (ROOT / "clip_common").rglob("*.py"):
        if file.name not in ("output.py", "page_helpers.py"):  # the page's go into memory
            assert ".savefig(" not in file.read_text("utf-8"), file


# --- standard output ------------------------------------------------------------------------------------


class Full(io.RawIOBase):
    """What a full disk does with a redirected output: it fails once a buffer is to arrive."""

    def __init__(self, file: Path) -> None:
        self.file = file.open("wb")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.file.fileno()

    def write(self, _content: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_output(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """In the test itself: pytest puts its own in place after the fixtures."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Full(folder / "output"))))


@pytest.mark.parametrize(
    "argv",
    [
        ["engine", "clip_mini"],
        ["weights", "list"],
        ["classify", DOG, "--labels", "dog,cat"],
        ["--help"],
        ["classify", "--help"],
        ["--version"],
    ],
)
def test_an_answer_that_finds_no_room(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_output(monkeypatch, tmp_path)
    assert main(argv) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("clip-hub")
    assert said.endswith(": standard output: the disk is full: free some space, or choose another place")


def test_hub_run_says_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PaddleHub would end in a traceback, so the command prints its answer itself."""
    fill_output(monkeypatch, tmp_path)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/hub", "run", "clip_mini"])
    monkeypatch.setattr(run_command, "_end_quietly_where_nobody_reads", lambda: None)
    argv = ["--input_path", DOG, "--labels", "dog,cat"]
    with pytest.raises(SystemExit) as stop:
        run_command.run("clip_mini", lambda **_: Predictor("clip_mini"), argv)
    assert stop.value.code == (
        "hub run clip_mini: standard output: the disk is full: free some space, or choose another place"
    )
