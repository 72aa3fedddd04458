"""`hub run <module>`: the options and the work of `cli/classify.py`, started by PaddleHub."""

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
    """The argument parser of a module, with PaddleHub's two groups of options."""
    made = _Parser(prog=f"hub run {name}", description=f"Run the module {name}.")
    classify.add_inputs(made.add_argument_group("Input options", "Data fed into the module."))
    classify.add_config(made.add_argument_group("Config options", "Run configuration, optional."))
    return made


def run(name: str, predictor_with: PredictorMaker, argv: list[str]) -> str:
    """Run a command line.

    Args:
        name: name of the module, for messages.
        predictor_with: creates the predictor from the `PredictorOptions` that the command line sets.
        argv: the arguments after `hub run <name>`.

    Returns:
        The text to print, if there was no error and this process is not `hub run` itself.

    Exits:
        With status 1 and one line on standard error if the run cannot start. Otherwise, after printing the
        results: with 1 if some images failed; with 0 if this process is `hub run` itself.
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
    """Whether this process is `hub run`.

    If so, `run` prints by itself and exits: PaddleHub would end in a traceback if printing fails.
    """
    return Path(sys.argv[0]).stem == "hub" and sys.argv[1:2] == ["run"]


def _end_quietly_where_nobody_reads() -> None:
    """Make `hub run ... | head` end without a traceback.

    Only in the command itself: in a user's program, a broken pipe must remain an exception.
    """
    if _is_the_command() and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
