"""`clip-hub completion`: a script by which a shell completes verbs, options and files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from . import options
from .reporting import emit

_SHELLS = ("bash", "zsh", "tcsh")
_PATHS = (
    None,
    Path,
    options.place,
    options.store_folder,
    options.output_store,
    options.output_folder,
    options.output_file,
)
_WORDS = {"name", "address", "mirror", "host"}


def add_arguments(parser: argparse.ArgumentParser, whole: Callable[[], argparse.ArgumentParser]) -> None:
    """Add the verb's options.

    Args:
        parser: the parser of this verb.
        whole: returns the parser of `clip-hub` with the options of every verb.
    """
    parser.add_argument(
        "shell", choices=_SHELLS, help="for bash: clip-hub completion bash > ~/.clip-hub.sh, and source that"
    )
    parser.set_defaults(run=lambda args: run(args.shell, whole()))


def run(shell: str, parser: argparse.ArgumentParser) -> int:
    """Print the script."""
    import shtab

    for action in _actions(parser):
        takes_a_value = action.nargs != 0 and action.choices is None
        if takes_a_value and action.type in _PATHS and action.dest not in _WORDS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    emit(shtab.complete(parser, shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)
        else:
            yield action
