"""`clip-hub VERB`, or `python -m clip_common VERB`: runs the verb, and prints errors on one line."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from typing import Any

from ..errors import ClipError
from ..system.home import provide_home
from ..version import __version__
from . import completion, options, reporting
from .parser import Parser

# A verb, and what it is for; its file is named like it. Files are imported when their verb is used.
VERBS = {
    "classify": "find the labels that fit images; options and output of `hub run`",
    "embed-text": "print the embeddings of texts",
    "embed": "embed many images and write Parquet files",
    "index": "make embeddings searchable",
    "search": "find images by words or by images",
    "duplicates": "find groups of nearly equal images, and which one to keep",
    "clusters": "sort images into clusters, with names from labels",
    "evaluate": "measure accuracy on images with known labels, and fit thresholds for labels",
    "adapt": "adapt a module to your own images",
    "serve": "serve modules over HTTP, for real traffic (Ray Serve)",
    "pack": "write a module as one archive for `hub install`",
    "weights": "list, fetch, convert and verify weights",
    "engine": "show which engine runs a module on the CPU here, and why",
    "completion": "print a script for completion in a shell",
}
_INTERRUPTED, _CLOSED_OUTPUT = 130, 141  # as shells report a process that SIGINT or SIGPIPE ended


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    prog = "clip-hub"
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # those of libraries, for whoever programs with them
    try:
        args = _parsed(argv)
        prog = f"clip-hub {args.verb}"
        reporting.set_quiet(args.quiet)
        provide_home()
        status = args.run(args)
        reporting.flush_output()
        return status
    except BrokenPipeError:
        reporting.leave_closed_output()
        return _CLOSED_OUTPUT
    except (ClipError, OSError) as error:
        reporting.complain(reporting.one_line(prog, error))
        return 1
    except KeyboardInterrupt:
        reporting.complain(reporting.one_line(prog, "interrupted"))
        return _INTERRUPTED


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    """The arguments; or the end, once help that is asked for has arrived."""
    try:
        return parser().parse_args(argv)
    except SystemExit:
        reporting.flush_output()
        raise


def parser(complete: bool = False) -> argparse.ArgumentParser:
    """The command line.

    Args:
        complete: fill in the options of all verbs, not only of the one that is used.
    """
    made = Parser(prog="clip-hub", description="CLIP on PaddlePaddle.")
    made.add_argument("--version", action="version", version=f"clip-hub {__version__}")
    options.add_quiet(made)
    verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_VerbParser)
    for verb, purpose in VERBS.items():
        one = verbs.add_parser(verb, help=purpose, description=purpose)
        if complete:
            one.fill()
    return made


class _VerbParser(Parser):
    """A verb's parser, which gets its options when it is first used."""

    def fill(self) -> None:
        verb = self.prog.split()[-1]
        if verb == "completion":
            completion.add_arguments(self, lambda: parser(complete=True))
        else:
            importlib.import_module(f".{verb.replace('-', '_')}", __package__).add_arguments(self)
        options.add_quiet(self, argparse.SUPPRESS)  # it may stand before the verb too

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.fill()
        return super().parse_known_args(args, namespace)
