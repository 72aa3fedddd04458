"""Progress bars, on standard error; they are silent where the package's warnings are."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any

from tqdm import tqdm

from .log import logger


class _Lossy:
    """Standard error for what nobody must read: where it is closed or full, a bar is lost and no answer."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:  # tqdm asks for the encoding and the terminal
        return getattr(sys.stderr, name)


def progress_bar(disable: bool = False, **options: Any) -> tqdm:
    """A bar with `tqdm`'s options, unless the logger is set to say nothing below an error (`--quiet`)."""
    return tqdm(disable=disable or not logger.isEnabledFor(logging.WARNING), file=_Lossy(), **options)
