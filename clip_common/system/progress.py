"""Progress bars, on standard error; they are silent where the package's warnings are."""

from __future__ import annotations

import logging
import sys
from typing import Any

from tqdm import tqdm

from .log import logger


def progress_bar(disable: bool = False, **options: Any) -> tqdm:
    """A bar with `tqdm`'s options, unless the logger is set to say nothing below an error (`--quiet`)."""
    return tqdm(disable=disable or not logger.isEnabledFor(logging.WARNING), file=sys.stderr, **options)
