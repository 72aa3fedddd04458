"""`clip-hub engine`: what runs a module on the CPU here, and why."""

from __future__ import annotations

import argparse

from ..engines.compile_cache import kept_folder
from ..engines.select import choose
from . import options
from .reporting import emit
from .weights import on_this_machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("module", type=options.record, metavar="NAME")
    options.add_engine(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the engine and where its compiled model is."""
    name, precision, why = choose(**options.given_options(args))
    emit(f"{name}, {precision}: {why}")
    found = on_this_machine(args.module)
    if name != "paddle":
        folder = kept_folder(found, name, precision)
        emit(f"compiled: {folder}" if folder else "not compiled yet: the first call does that")
    return 0
