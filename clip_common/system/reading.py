"""Files that a user names, read whole: never one that has no end, and never more than there is room for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 1 << 30
"""Of an image, a list or a table."""


def require_regular(path: Path | str) -> os.stat_result:
    """Check that a path is a file: to open a pipe may wait for ever, and a device may have no end.

    Raises:
        OSError: it is not, or is not there; its `strerror` says what it is.
    """
    status = os.stat(path)  # noqa: PTH116 - a Path per image costs time
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        reason = "it is a pipe or a device, not a file: save it to a file first"
        raise OSError(errno.EINVAL, reason, str(path))
    return status


def require_size(size: int, most: int, path: Path | str) -> None:
    """Check a number of bytes.

    Raises:
        OSError: there are more than `most`.
    """
    if size > most:
        reason = f"it has {size:,} bytes, and at most {most:,} are read: is it another file?"
        raise OSError(errno.EINVAL, reason, str(path))


def read_whole(path: Path | str, most: int = MOST_BYTES) -> bytes:
    """A file's bytes.

    Raises:
        OSError: it cannot be read, is no file, or has more than `most` bytes.
    """
    require_size(require_regular(path).st_size, most, path)
    content = bytearray()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):  # it may grow
            content += chunk
            require_size(len(content), most, path)
    return bytes(content)
