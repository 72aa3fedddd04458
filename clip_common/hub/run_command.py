"""`hub run <module>`: PaddleHub's way to `cli/classify.py`, and how such a run ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ..cli import classify, options
from ..cli.parser import Parser
from ..cli.prediction import perform
from ..cli.reporting import complain, emit, flush_output, for_console, one_line
from ..errors import ClipError
from ..predictor import Predictor

PredictorMaker = Callable[..., Predictor]


class _Parser(Parser):
    def error(self, message: str) -> NoReturn:
        sys.exit(self.fault(message))


def parser(name: str) -> Parser:
    """The command line of a module, in PaddleHub's two groups."""
    made = _Parser(prog=f"hub run {name}", description=f"Run the module {name}.")
    classify.add_inputs(made.add_argument_group("Input options", "Data fed into the module."))
    classify.add_config(made.add_argument_group("Config options", "Run configuration, optional."))
    return made


def run(name: str, predictor_with: PredictorMaker, argv: list[str]) -> str:
    """Do what a command line asks for.

    Args:
        name: the module's, for messages.
        predictor_with: gives the predictor for those of `--weights`, `--exif_rotation`, `--fast_jpeg`,
            `--engine` and `--precision` that are given.
        argv: what follows `hub run <name>`.

    Returns:
        What to print on standard output, if everything went well and this is not the command itself.

    Exits:
        With status 1 and one line on standard error if the run cannot start; after printing the answers with
        status 1 if some images failed, with 0 in the command itself.
    """
    made = parser(name)
    args = made.parse_args(argv)
    try:
        task = classify.task_of(args)
        outcome = perform(predictor_with(**options.given_options(args)), task)
    except (ClipError, OSError) as error:
        sys.exit(one_line(made.prog, error))
    except KeyboardInterrupt:
        complain(one_line(made.prog, "interrupted"))
        sys.exit(130)
    output = outcome.rendered(args.format)
    if not outcome.errors and not _is_the_command():
        return for_console(output, sys.stdout)
    _end_quietly_where_nobody_reads()
    try:
        emit(output)
        flush_output()
    except OSError as error:
        sys.exit(one_line(made.prog, error))
    for line in outcome.failures():
        complain(line)
    sys.exit(1 if outcome.errors else 0)


def _is_the_command() -> bool:
    """Whether this process is `hub run`. It ends here: PaddleHub, which prints what `run` returns, would end
    in a traceback where that cannot be printed.
    """
    return Path(sys.argv[0]).stem == "hub" and sys.argv[1:2] == ["run"]


def _end_quietly_where_nobody_reads() -> None:
    """Let `hub run ... | head` end the process without a traceback.

    Only the command itself: in a program of the user's a closed connection must stay an exception.
    """
    if _is_the_command() and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
