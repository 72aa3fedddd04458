"""Installs this repository's modules into PaddleHub's home (`HUB_HOME`, default ~/.paddlehub), if changed.

A module is a folder and is simply copied. PaddleHub's own `hub install` takes seconds to import, calls pip
for requirements that are already installed, and fails if the path of the home contains `-`, because it
replaces `-` by `_` in the whole path of its temporary copy.
"""

from __future__ import annotations

import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

from clip_common.system.cache import hub_home

TREE = Path(__file__).resolve().parent.parent / "modules"


def hub_modules() -> Path:
    """The folder of PaddleHub's installed modules."""
    return hub_home() / "modules"


def is_current(module: Path) -> bool:
    """Whether the installed module is equal to the one in the repository."""
    installed = hub_modules() / module.name
    files = [
        file.relative_to(module) for file in module.rglob("*") if file.is_file() and file.suffix != ".pyc"
    ]
    _, different, missing = filecmp.cmpfiles(module, installed, [str(file) for file in files], shallow=False)
    return not different and not missing


def install(module: Path) -> None:
    """Replace the installed module by a copy; it is made in a temporary folder first, so never partial."""
    installed = hub_modules() / module.name
    with tempfile.TemporaryDirectory(prefix=".install_", dir=hub_modules()) as scratch:
        fresh, old = Path(scratch) / "fresh", Path(scratch) / "old"
        shutil.copytree(module, fresh, ignore=shutil.ignore_patterns("__pycache__"))
        if installed.is_symlink():
            installed.unlink()
        elif installed.exists():
            installed.rename(old)
        fresh.rename(installed)


def main() -> None:
    """Install modules that are missing or differ."""
    stale = [folder.parent for folder in sorted(TREE.glob("*/module.py")) if not is_current(folder.parent)]
    try:
        hub_modules().mkdir(parents=True, exist_ok=True)
        for module in stale:
            install(module)
    except OSError as error:
        sys.exit(
            f"cannot install the modules into {hub_modules()}: {error}; set HUB_HOME to a folder of yours"
        )


if __name__ == "__main__":
    main()
