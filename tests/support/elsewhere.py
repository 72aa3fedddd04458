"""Runs Python with the installed packages but without this repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_elsewhere(code: str, *args: str, cwd: Path, home: Path | None = None) -> str:
    """Run a program and return its output; PaddleHub's home is `home`, default `cwd / "home"`.

    `-S` skips the .pth file that makes this repository importable.
    """
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    places = {"HUB_HOME": str(home or cwd / "home"), "CLIP_HUB_CACHE": str(cwd / "cache")}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, *args],
        env={**os.environ, "PYTHONPATH": packages, **places},
        cwd=cwd, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
