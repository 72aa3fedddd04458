"""A PaddleHub home and a cache of the run's own, and what more than one test file uses."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before anything imports PaddleHub, which reads its home when it is imported.
_SCRATCH = tempfile.TemporaryDirectory(prefix="clip_hub_tests_")
os.environ["HUB_HOME"] = str(Path(_SCRATCH.name) / "hub")
os.environ["CLIP_HUB_CACHE"] = str(Path(_SCRATCH.name) / "cache")
os.environ.pop("CLIP_HUB_MIRROR", None)

import pytest

from tests.support.checkpoints import Checkpoints
from tests.support.paths import ROOT


@pytest.fixture(scope="session")
def hub_home() -> Path:
    """A PaddleHub home with the tree's modules installed, as `make setup` does it."""
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "install_modules.py"],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return Path(os.environ["HUB_HOME"])


@pytest.fixture(scope="session")
def checkpoints() -> Iterator[Checkpoints]:
    with tempfile.TemporaryDirectory(prefix="clip_hub_checkpoints_") as folder:
        yield Checkpoints(Path(folder))


def pytest_collection_finish() -> None:
    """Keep what the imports made out of the garbage collector's rounds: a fifth of the unit tests' time."""
    gc.collect()
    gc.freeze()
