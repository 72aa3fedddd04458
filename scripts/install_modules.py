"""Install the tree's modules into PaddleHub's home (`HUB_HOME`, by default ~/.paddlehub), if they changed."""

from __future__ import annotations

import filecmp
import os
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent / "modules"


def hub_modules() -> Path:
    """Where PaddleHub keeps installed modules."""
    return Path(os.environ.get("HUB_HOME") or Path.home() / ".paddlehub") / "modules"


def is_current(module: Path) -> bool:
    """Whether a module is installed as it is in the tree."""
    installed = hub_modules() / module.name
    files = [
        file.relative_to(module) for file in module.rglob("*") if file.is_file() and file.suffix != ".pyc"
    ]
    _, different, missing = filecmp.cmpfiles(module, installed, [str(file) for file in files], shallow=False)
    return not different and not missing


def main() -> None:
    """Install what is missing or differs; importing PaddleHub takes seconds, so only then."""
    stale = [folder.parent for folder in sorted(TREE.glob("*/module.py")) if not is_current(folder.parent)]
    if not stale:
        return
    from paddlehub.module.manager import LocalModuleManager

    for module in stale:
        LocalModuleManager().install(directory=str(module))
    missing = [module.name for module in stale if not is_current(module)]
    if missing:
        sys.exit(f"could not install {', '.join(missing)} into {hub_modules()}")


if __name__ == "__main__":
    main()
