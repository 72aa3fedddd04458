"""Output of all verbs: text that every console can print, one-line errors, and summaries of failures."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TextIO

from ..system.file_names import printable, printable_lines
from ..system.log import logger
from ..system.output import reason_of
from ..system.secrets import hide_secrets
from ..system.words import counted

if TYPE_CHECKING:
    from ..search.stored_images import StoredImages


def emit(text: str, stream: TextIO | None = None) -> None:
    """Print a text to a stream, by default standard output; escapes what its encoding lacks."""
    stream = stream or sys.stdout
    if stream is None:  # Python sets it to None if it is closed
        raise OSError("standard output is closed: there is nowhere to print the answer")
    with _naming_output(stream):
        print(for_console(text, stream), file=stream)


def flush_output() -> None:
    """Flush standard output, and raise if that fails."""
    if sys.stdout is not None:
        with _naming_output(sys.stdout):
            sys.stdout.flush()


@contextlib.contextmanager
def _naming_output(stream: TextIO) -> Iterator[None]:
    """Add the name of the stream to an OSError, which has no file name if the disk is full."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if stream is sys.stdout:
            leave_closed_output()
        raise OSError(error.errno, reason_of(error), "standard output") from None


def complain(text: str) -> None:
    """Print one line on standard error; ignored if that is closed or full."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            emit(printable(hide_secrets(text)), sys.stderr)


def complain_of_the_first(faults: Iterable[str]) -> None:
    """Print the first ten faults on standard error, one per line."""
    for fault in itertools.islice(faults, 10):
        complain(fault)


def for_console(text: str, stream: TextIO) -> str:
    """Escape a text for a stream, see `printable_lines`."""
    return printable_lines(text, stream.encoding or "utf-8")


def one_line(prog: str, fault: BaseException | str) -> str:
    """The error message of a command, on one line, without secrets."""
    if isinstance(fault, FileNotFoundError) and fault.filename is None:
        fault = "the current folder no longer exists: change to another one"
    elif isinstance(fault, OSError) and fault.filename is not None:
        fault = f"{os.fsdecode(fault.filename)}: {reason_of(fault)}"
    return printable(hide_secrets(f"{prog}: {fault}"))


def note(text: str) -> None:
    """Print a note on standard error, unless `--quiet` is given."""
    if logger.isEnabledFor(logging.WARNING):
        complain(text)


def set_quiet(quiet: bool) -> None:
    """Switch off notes, warnings and progress bars; results and errors are still printed."""
    logger.setLevel(logging.ERROR if quiet else logging.NOTSET)


def leave_closed_output() -> None:
    """Redirect a broken standard output to /dev/null, so that Python does not report an error at exit.

    It breaks if its reader (`head`) has ended, or the disk is full.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report_unread(errors: Mapping[str, str], consequence: str) -> int:
    """Print which images could not be read, the first ten by name; returns the exit status."""
    complain_of_the_first(errors.values())
    if errors:
        complain(f"{counted(len(errors), 'image')} could not be read: {consequence}")
    return 1 if errors else 0


def report_left_out(stored: StoredImages) -> int:
    """Say which rows were left out and why; returns the exit status."""
    if stored.texts:
        note(f"{counted(stored.texts, 'text')} left out: only images are compared")
    if stored.repeated:
        note(f"{counted(stored.repeated, 'image')} left out: an earlier store has the same file")
    if stored.unusable:
        unusable = counted(stored.unusable, "image")
        complain(f"{unusable} left out: some values in their embeddings are not numbers, or all are zero")
    return 1 if stored.unusable else 0
