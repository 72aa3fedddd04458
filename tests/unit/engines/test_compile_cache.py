"""How the compile worker is started: whatever the folder, the environment and the runtime's distribution."""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from clip_common.config import pretrained
from clip_common.engines import compile_cache
from clip_common.engines.artifacts import MANIFEST
from clip_common.weights.weights_file import WeightsFile
from tests.support.paths import ROOT

RECORD = pretrained("clip_mini")


class Started:
    """In the compile worker's place: the same Python, folder and environment; it says what it imports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.imported: list[str] = []
        self.paths: list[Path] = []
        self._run = subprocess.run
        monkeypatch.setattr(subprocess, "run", self)

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[1] == "-m"
        # Like -m, -c searches the current folder first.
        probe = "import ftfy, clip_common; print(ftfy.__file__); print(clip_common.__file__)"
        done = self._run([command[0], "-c", probe], **options)
        self.imported = done.stdout.splitlines()
        weights, folder = Path(command[5]), Path(command[-1])
        scratch = Path(
            options["env"]["TMPDIR"]
        )  # what the worker leaves when it is killed goes with the folder
        assert scratch.parent == folder
        self.paths = [weights, folder]
        (folder / MANIFEST).write_text("{}")
        return done


@pytest.fixture()
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    return Started(monkeypatch)


def compile_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("relative.safetensors").touch()
    weights = WeightsFile(Path("relative.safetensors"), "a hash", RECORD)
    compile_cache.compiled_folder(weights, "onnxruntime")


@pytest.mark.parametrize("search_path", [None, "", os.pathsep, f"{os.pathsep}/nowhere"])
def test_no_file_of_the_users_folder_is_executed(
    search_path: str | None, started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images"
    (images / "clip_common").mkdir(parents=True)
    for file in ("ftfy.py", "clip_common/__init__.py"):
        (images / file).write_text("raise SystemExit('a file of the folder was executed')")
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if search_path is not None:
        monkeypatch.setenv("PYTHONPATH", search_path)
    compile_in(images, monkeypatch)
    assert not any(Path(file).is_relative_to(images) for file in started.imported)
    assert started.imported[1] == str(ROOT / "clip_common" / "__init__.py")


def test_relative_paths_mean_what_they_mean_here(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wanted").mkdir()
    (tmp_path / "wanted" / "ftfy.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", "wanted")
    monkeypatch.setenv("CLIP_HUB_CACHE", "cache")
    compile_in(tmp_path, monkeypatch)
    assert started.imported[0] == str(tmp_path / "wanted" / "ftfy.py")
    assert started.paths[0] == tmp_path / "relative.safetensors"
    assert started.paths[1].is_relative_to(tmp_path / "cache")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_an_error_and_no_wait(
    number: int, started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS without its lock service, say; filelock took that for another process's lock until 3.20."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path / "cache"))
    said: list[str] = []

    def compile_here() -> None:
        with pytest.raises(compile_cache.CompileError) as error:
            compile_in(tmp_path, monkeypatch)
        said.append(str(error.value))

    compiling = threading.Thread(target=compile_here, daemon=True)
    compiling.start()
    compiling.join(60)
    assert len(said) == 1 and os.strerror(number) in said[0]


def test_a_worker_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process_id = tmp_path / "process_id"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $$ > {process_id}\nexec sleep 600\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(compile_cache, "_HALF_HOUR", 3.0)
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(compile_cache.CompileError, match="compiling did not end within 0 minutes"):
        compile_in(tmp_path, monkeypatch)
    with pytest.raises(ProcessLookupError):
        os.kill(int(process_id.read_text()), 0)
    assert not [folder for folder in (tmp_path / "cache" / "engines").iterdir() if folder.is_dir()]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_runtime_may_come_from_a_distribution_of_another_name(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(runtime)

    def version(name: str) -> str:  # what it does where only onnxruntime-gpu is installed
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    weights = WeightsFile(Path("x"), "no such hash", RECORD)
    assert compile_cache.kept_folder(weights, runtime, "float32") is None
