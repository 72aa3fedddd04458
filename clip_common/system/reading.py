"""Read user-supplied files into memory: regular files only, and only up to a size limit."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np

MOST_BYTES = 1 << 30
"""Default size limit of an image, a list or a table."""


def require_regular(path: Path | str) -> os.stat_result:
    """Check that a path is a regular file: opening a pipe may block forever, and a device may be endless.

    Raises:
        OSError: it is not, or does not exist; `strerror` says what it is.
    """
    status = os.stat(path)  # noqa: PTH116 - a Path per image costs time
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        reason = "it is a pipe or a device, not a file: save it to a file first"
        raise OSError(errno.EINVAL, reason, str(path))
    return status


def require_size(size: int, most: int, path: Path | str) -> None:
    """Check the size of a file, in bytes.

    Raises:
        OSError: there are more than `most`.
    """
    if size > most:
        reason = f"it has {size:,} bytes, and at most {most:,} are read: is it the wrong file?"
        raise OSError(errno.EINVAL, reason, str(path))


def read_whole(path: Path | str, most: int = MOST_BYTES) -> bytes:
    """Read the bytes of a file.

    Raises:
        OSError: it cannot be read, is not a regular file, or has more than `most` bytes.
    """
    require_size(require_regular(path).st_size, most, path)
    content = bytearray()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):  # the file may be growing
            content += chunk
            require_size(len(content), most, path)
    return bytes(content)


def open_npz(path: Path) -> np.lib.npyio.NpzFile:
    """A file of numpy arrays by name, as `np.savez` writes it.

    Raises:
        OSError, ValueError, EOFError, zipfile.BadZipFile: it is none, or cannot be read.
    """
    file = np.load(path, allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise ValueError("it holds one array without a name")
    return file
