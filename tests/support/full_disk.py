"""A file on a full disk."""

from __future__ import annotations

import errno
import io
import os
from typing import Any, NoReturn


class FullDisk(io.BytesIO):
    """An open file on a full disk; it also stands in for the path."""

    def open(self, _mode: str) -> FullDisk:
        """Like `Path.open`."""
        return self

    def write(self, _content: Any) -> NoReturn:
        """Fail as Linux does."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
