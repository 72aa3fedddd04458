"""A file on a disk that is full."""

from __future__ import annotations

import errno
import io
import os
from typing import Any, NoReturn


class FullDisk(io.BytesIO):
    """What `open` gives there; it stands for the path too."""

    def open(self, _mode: str) -> FullDisk:
        """As of a path."""
        return self

    def write(self, _content: Any) -> NoReturn:
        """Fail as Linux does."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
