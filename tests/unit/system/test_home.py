"""Paddle is imported whatever the home is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clip_common.system.home import provide_home
from tests.support.paths import EXAMPLES, ROOT

LOAD = """
import os, sys
import clip_common
print(len(clip_common.load("clip_mini").state_dict()) > 0, sys.modules["paddle"].dataset.common.DATA_HOME)
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A temporary folder in which another user's `.cache` is in the way."""
    made = tmp_path / "shared"
    made.mkdir()
    (made / ".cache").write_text("")
    return made


@pytest.mark.parametrize(
    "home",
    [
        "/dev/null",
        *(pytest.param(home, marks=pytest.mark.slow) for home in ("/proc/nowhere", "file", "file/below")),
    ],
)
def test_a_home_that_cannot_be_written(home: str, shared: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    chosen = str(tmp_path / home)  # as it is if it begins at the top
    done = run("-c", LOAD, HOME=chosen, TMPDIR=str(shared))
    assert done.stdout.startswith(f"True {shared}/clip_hub_scratch_"), done.stderr
    (line,) = done.stderr.splitlines()
    assert line == f"the home {chosen} cannot be written: a temporary one is used and removed at the end"
    assert [path.name for path in shared.iterdir()] == [".cache"]  # nothing is left


@pytest.mark.slow
def test_the_command_answers(shared: Path) -> None:
    command = ["-m", "clip_common", "classify", str(EXAMPLES / "dog.png"), "--labels", "a dog,a cat"]
    done = run(*command, "--engine", "paddle", "--quiet", HOME="/dev/null", TMPDIR=str(shared))
    assert done.returncode == 0 and "a dog" in done.stdout
    assert "Traceback" not in done.stderr and "cannot be written" not in done.stderr


def test_a_usual_home_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    provide_home.cache_clear()
    provide_home()
    assert os.environ["HOME"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
