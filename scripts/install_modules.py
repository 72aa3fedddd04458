"""Install the tree's modules into PaddleHub's home (`HUB_HOME`, by default ~/.paddlehub), if they changed.

A module is a folder, so they are copied. PaddleHub's own `hub install` would take seconds to import, ask
pip about requirements that set-up has just installed, and fail in a home with `-` in its path, which it
turns into `_` in the whole path of its temporary copy.
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
    """Where PaddleHub keeps installed modules."""
    return hub_home() / "modules"


def is_current(module: Path) -> bool:
    """Whether a module is installed as it is in the tree."""
    installed = hub_modules() / module.name
    files = [
        file.relative_to(module) for file in module.rglob("*") if file.is_file() and file.suffix != ".pyc"
    ]
    _, different, missing = filecmp.cmpfiles(module, installed, [str(file) for file in files], shallow=False)
    return not different and not missing


def install(module: Path) -> None:
    """Put a copy in the place of what is installed; it is made aside, so that one cut short is none."""
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
    """Install what is missing or differs."""
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
