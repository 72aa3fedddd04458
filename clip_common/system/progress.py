"""Progress bars on standard error; switched off together with the package's warnings."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any

from tqdm import tqdm

from .log import logger


class _Lossy:
    """Standard error without its write errors: if it is closed or full, only the progress bar is lost."""

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
    """A `tqdm` progress bar, disabled if warnings are not logged (`--quiet`)."""
    return tqdm(disable=disable or not logger.isEnabledFor(logging.WARNING), file=_Lossy(), **options)
