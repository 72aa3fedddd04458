"""A home folder that Paddle can be imported with."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

from ..errors import RequestError
from .cache import home
from .log import logger
from .output import require_folder
from .scratch import scratch_folder_of_process


@cache
def provide_home() -> None:
    """Set HOME to a temporary folder if importing Paddle would fail with the current one.

    Importing Paddle creates a folder below HOME, or below the temporary folder if HOME is not accessible. It
    fails if neither is possible, for example with HOME=/dev/null.
    """
    place = home() if os.access(home(), os.W_OK) else Path(tempfile.gettempdir())
    try:
        require_folder(place / ".cache" / "paddle" / "dataset")
    except RequestError:
        logger.warning(
            "the home %s cannot be written: a temporary one is used and removed at the end", home()
        )
        os.environ["HOME"] = str(scratch_folder_of_process())
