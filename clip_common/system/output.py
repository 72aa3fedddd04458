"""Places for results, looked at before the work begins whose results would be lost."""

from __future__ import annotations

import errno
import stat
import tempfile
from pathlib import Path

from ..errors import RequestError


def require_folder(folder: Path) -> None:
    """Check that a folder can be written into, or be made; makes nothing.

    Raises:
        RequestError: naming what stands in the way.
    """
    place = _existing(folder)
    if not stat.S_ISDIR(place.stat().st_mode):
        inside = "" if place == folder else f"{folder} cannot be: "
        raise RequestError(f"{inside}{place} is a file, not a folder: choose another place")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise _unusable(folder, error) from None


def require_file(file: Path) -> None:
    """Check that a file can be written, or another be put in its place.

    Raises:
        RequestError: naming what stands in the way.
    """
    if _existing(file) == file and file.is_dir():
        raise RequestError(f"{file} is a folder, not a file: choose another place")
    require_folder(file.parent)


def _existing(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    while True:
        try:
            path.stat()
            return path
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise _unusable(path, error) from None
            if path.is_symlink():
                raise RequestError(f"{path} is a link that leads nowhere: choose another place") from None
            if path.parent == path:  # the current folder itself is gone
                raise _unusable(path, error) from None
            path = path.parent


def _unusable(path: Path, error: OSError) -> RequestError:
    return RequestError(f"{path} cannot be written ({error.strerror or error}): choose another place")
