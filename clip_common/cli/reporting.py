"""What verbs print: text that no console fails on, one line for what went wrong, and how many failed."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TextIO

from ..system.file_names import printable, printable_lines
from ..system.log import logger
from ..system.output import reason_of
from ..system.secrets import hide_secrets
from ..system.words import counted


def emit(text: str, stream: TextIO | None = None) -> None:
    """Print a text, to standard output unless told otherwise; what the console lacks is escaped."""
    stream = stream or sys.stdout
    if stream is None:  # the interpreter's form of a closed one
        raise OSError("standard output is closed: there is nowhere to print the answer")
    with _naming_output(stream):
        print(for_console(text, stream), file=stream)


def flush_output() -> None:
    """See that what was printed has arrived."""
    if sys.stdout is not None:
        with _naming_output(sys.stdout):
            sys.stdout.flush()


@contextlib.contextmanager
def _naming_output(stream: TextIO) -> Iterator[None]:
    """Name standard output in the error where it cannot be written: a full disk's names no file."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if stream is sys.stdout:
            leave_closed_output()
        raise OSError(error.errno, reason_of(error), "standard output") from None


def complain(text: str) -> None:
    """Print what went wrong, a line on standard error; where that is closed or full nobody can be told."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            emit(printable(hide_secrets(text)), sys.stderr)


def complain_of_the_first(faults: Iterable[str], count: int = 10) -> None:
    """The first of many faults, a line each."""
    for fault in itertools.islice(faults, count):
        complain(fault)


def for_console(text: str, stream: TextIO) -> str:
    """The text as a stream can hold it and a terminal show it, see `printable_lines`."""
    return printable_lines(text, stream.encoding or "utf-8")


def one_line(prog: str, fault: BaseException | str) -> str:
    """What a command says that cannot go on; a file name may hold line breaks, the message not."""
    if isinstance(fault, FileNotFoundError) and fault.filename is None:
        fault = "the current folder is not there any more: change to another one"
    elif isinstance(fault, OSError) and fault.filename is not None:
        fault = f"{os.fsdecode(fault.filename)}: {reason_of(fault)}"
    return printable(hide_secrets(f"{prog}: {fault}"))


def note(text: str) -> None:
    """Print on standard error what is good to know, unless `--quiet` is given."""
    if logger.isEnabledFor(logging.WARNING):
        complain(text)


def set_quiet(quiet: bool) -> None:
    """Silence notes, warnings and progress bars; results and errors are printed all the same."""
    logger.setLevel(logging.ERROR if quiet else logging.NOTSET)


def leave_closed_output() -> None:
    """Let the interpreter end without a word though standard output takes no more: its reader (`head`) has
    gone, or the disk is full.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report_unread(errors: Mapping[str, str], consequence: str) -> int:
    """Say which images could not be read, the first ten by name; returns the exit status."""
    complain_of_the_first(errors.values())
    if errors:
        complain(f"{counted(len(errors), 'image')} could not be read: {consequence}")
    return 1 if errors else 0
