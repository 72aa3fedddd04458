"""Writes `constraints.txt`, the versions that `make setup` and CI install: `make constraints`.

`pyproject.toml` says which versions are allowed, `constraints.txt` which were tested. uv resolves them for
each Python, and the results are merged into one file: a version that differs between Pythons has a marker.
Run the test suite on the oldest and the newest Python before committing the result.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
PYTHONS = ("3.10", "3.11", "3.12")
# PaddleNLP's tool-helpers has wheels for this platform only.
PLATFORM = "x86_64-manylinux_2_28"
# Without `parity`: where to get a CPU wheel of torch depends on the machine.
EXTRAS = ("test", "train", "bench", "docs")
# The installers themselves are not replaced during an installation: with the pip of Python 3.10, seqeval (a
# source package) does not build if setuptools is upgraded meanwhile. pyproject.toml bounds setuptools.
LEFT_OUT = {"pip", "setuptools"}

HEADER = """\
# The versions that were tested together, for `pip install --constraint constraints.txt .`; `make setup`
# and CI use it. Written by `make constraints`, from the bounds in pyproject.toml. Do not edit by hand.
"""


def resolve(python: str) -> dict[str, str]:
    """The versions of all requirements of the project and its extras on a Python, by name."""
    command = [sys.executable, "-m", "uv", "pip", "compile", str(ROOT / "pyproject.toml"), "--quiet"]
    command += ["--python-version", python, "--python-platform", PLATFORM]
    command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    for extra in EXTRAS:
        command += ["--extra", extra]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    versions = dict(line.split("==") for line in lines if "==" in line)
    return {name: version for name, version in versions.items() if name not in LEFT_OUT}


def merge(resolved: dict[str, dict[str, str]]) -> list[str]:
    """One line for each version; if a package has several, markers name their Pythons."""
    lines = []
    for name in sorted({name for versions in resolved.values() for name in versions}):
        pythons_of: dict[str, list[str]] = {}
        for python, versions in resolved.items():
            if name in versions:
                pythons_of.setdefault(versions[name], []).append(python)
        for version, pythons in pythons_of.items():
            marker = " or ".join(f"python_version == '{python}'" for python in pythons)
            lines.append(f"{name}=={version}" + (f" ; {marker}" if len(pythons_of) > 1 else ""))
    return lines


def main() -> None:
    """Resolve for every Python and write the file."""
    resolved = {python: resolve(python) for python in PYTHONS}
    CONSTRAINTS.write_text(HEADER + "\n".join(merge(resolved)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
