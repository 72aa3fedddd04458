"""`clip-hub pack`: a module as one archive for `hub install`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..system.cache import hub_home
from ..system.file_names import shown_name
from . import options
from .reporting import emit, note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("module", type=options.record, metavar="NAME")
    parser.add_argument(
        "--weights", help="the weights to include, a file or a tag; default: the module's own"
    )
    parser.add_argument("--no_weights", action="store_true", help="leave weights out")
    parser.add_argument("--name", help="another name for the module, for weights that `adapt` made")
    parser.add_argument("--readme", type=Path, help="a model card in place of the module's own")
    parser.add_argument(
        "--output", type=options.output_folder, default="dist", help="folder for the archive; default: dist"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the archive and name it."""
    from ..hub.pack import pack

    archive = pack(args.module, args.output, args.weights, not args.no_weights, args.name, args.readme)
    emit(f"{shown_name(str(archive))}: {archive.stat().st_size:,} bytes")
    if "-" in str(home := hub_home()):
        note(
            f"`hub install` fails in {home}: PaddleHub writes `_` for each `-` of that path. "
            "Set HUB_HOME to a folder without `-` in its path"
        )
    return 0
