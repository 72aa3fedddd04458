"""A home that Paddle can be imported with."""

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
    """Where Paddle's import would end in an error, as with HOME=/dev/null, another home for this process.

    Importing Paddle makes a folder in the home, or where that is not its user's, in the temporary folder.
    """
    place = home() if os.access(home(), os.W_OK) else Path(tempfile.gettempdir())
    try:
        require_folder(place / ".cache" / "paddle" / "dataset")
    except RequestError:
        logger.warning(
            "the home %s cannot be written: a temporary one is used and removed at the end", home()
        )
        os.environ["HOME"] = str(scratch_folder_of_process())
