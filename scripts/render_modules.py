"""Renders the files of the module folders from each module's record, its card and the templates.

`python -m scripts.render_modules` writes them; with `--check` it only lists outdated files, with status 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import jinja2

from clip_common.config import PRETRAINED
from clip_common.version import __version__
from scripts.module_cards import CARDS

MODULES = Path(__file__).resolve().parent.parent / "modules"
TEMPLATES = Path(__file__).resolve().parent / "module_templates"
FILES = ("module.py", "README.md", "README_en.md", "requirements.txt", "test.py")


def rendered(name: str) -> dict[Path, str]:
    """The contents of the files of one module, by path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    values = {"record": PRETRAINED[name], "card": CARDS[name], "version": __version__}
    return {
        MODULES / name / file: _tidy(environment.get_template(f"{file}.jinja").render(values))
        for file in FILES
    } | {MODULES / name / "__init__.py": ""}


def _tidy(text: str) -> str:
    """Remove the empty lines that the blocks of a template leave."""
    return re.sub(r"\n{3,}(?!class |@|if |[A-Z])", "\n\n", text)


def stale() -> list[Path]:
    """The files that are missing or differ from what the templates give."""
    return [
        path
        for name in PRETRAINED
        for path, text in rendered(name).items()
        if not path.is_file() or path.read_text("utf-8") != text
    ]


def main() -> None:
    """Write or list the outdated files."""
    parser = argparse.ArgumentParser(prog="python -m scripts.render_modules", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a file is stale")
    check = parser.parse_args().check
    found = stale()
    for path in found:
        print(path.relative_to(MODULES.parent))
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(rendered(path.parent.name)[path], "utf-8")
    sys.exit(1 if check and found else 0)


if __name__ == "__main__":
    main()
