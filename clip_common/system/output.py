"""Output files: checked before long work whose results would be lost, and written atomically.

Every file that this package writes is written here, so that a full disk never leaves a partial file and is
reported in one way.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from ..errors import RequestError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UNFINISHED = ".unfinished"  # suffix of a file that is being written
_LEFT = re.compile(rf"\..*\.\w{{8}}{re.escape(_UNFINISHED)}")
_NO_ROOM = {
    errno.ENOSPC: "the disk is full: free some space, or choose another place",
    errno.EFBIG: "the file is larger than the limit here: see `ulimit -f`, or choose another place",
    errno.EDQUOT: "the disk quota is used up: free some space, or choose another place",
}


def reason_of(error: BaseException) -> str:
    """Why a file cannot be written or read; for a full disk, also what to do."""
    number, strerror = getattr(error, "errno", None), getattr(error, "strerror", None)
    return _NO_ROOM.get(number) or strerror or str(error)  # type: ignore[arg-type]


def no_room_in(folder: Path, error: BaseException) -> str | None:
    """The reason, with what to do, if an error is due to a full disk; else None.

    Libraries report a full disk in words of their own or not at all, so another megabyte is tried. Call it
    before partial files are removed.
    """
    if getattr(error, "errno", None) in _NO_ROOM:
        return reason_of(error)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
            file.flush()
    except OSError as failure:
        return _NO_ROOM.get(failure.errno or 0)
    return None


# --- places ----------------------------------------------------------------------------------------------


def require_folder(folder: Path) -> None:
    """Check that a folder is writable, or can be created; creates nothing.

    Raises:
        RequestError: it is not; the message says why.
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
    """Check that a file can be created or replaced.

    Raises:
        RequestError: it cannot; the message says why.
    """
    if _existing(file) == file and file.is_dir():
        raise RequestError(f"{file} is a folder, not a file: choose another place")
    require_folder(file.parent)


@contextlib.contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Create a folder and lock it for the block. The lock is released when the process ends, however it ends.

    A folder that was created here and is empty at the end is removed.

    Raises:
        RequestError: another process holds the lock, or the folder is not writable.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    with _made(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise RequestError(
                f"another process is writing into {folder}: wait for it, or choose another folder"
            ) from None
        except OSError as error:
            raise RequestError(f"{folder} cannot be written ({reason_of(error)})") from error
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (folder / ".lock").unlink()  # before the release: then it may be another's
            lock.release()


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """For a block that creates a folder: if it is empty at the end, what was created is removed."""
    new = list(takewhile(lambda place: not os.access(place, os.F_OK), (folder, *folder.parents)))
    try:
        yield
    finally:
        for place in new:
            with contextlib.suppress(OSError):  # it is not empty
                place.rmdir()


def _existing(path: Path) -> Path:
    """The path itself, or its nearest ancestor that exists."""
    while True:
        try:
            path.stat()
            return path
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise _unusable(path, error) from None
            if path.is_symlink():
                raise RequestError(f"{path} is a broken symbolic link: choose another place") from None
            if path.parent == path:  # the current folder itself is gone
                raise _unusable(path, error) from None
            path = path.parent


def _unusable(path: Path, error: OSError) -> RequestError:
    if error.errno in _NO_ROOM:
        return RequestError(f"{path} cannot be written: {reason_of(error)}")
    return RequestError(f"{path} cannot be written ({reason_of(error)}): choose another place")


# --- files -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that is renamed to `path` on success, and removed on failure.

    The content is synced to disk before the rename. Temporary files that killed processes left in the folder
    are removed.

    Raises:
        OSError: the file cannot be written; its `filename` is `path`.
    """
    try:
        with _made(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path.parent)
            handle, temporary = _locked_temporary(path)
            try:
                yield temporary
                temporary.chmod(0o644)
                sync(temporary)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
                os.close(handle)
    except OSError as error:
        if error.filename and not str(error.filename).endswith(_UNFINISHED):
            raise
        # numpy and Pillow say neither which file could not be written nor why.
        reason = reason_of(error) if error.errno else f"{error}; is the disk full?"
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, "utf-8")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a matplotlib figure as PNG, atomically."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def sync(path: Path) -> None:
    """Wait until a file's content is on disk: otherwise a power cut may leave a name without content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _locked_temporary(path: Path) -> tuple[int, Path]:
    """Create and open a temporary file beside `path`, locked until it is closed or the process ends."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=_UNFINISHED)
        with contextlib.suppress(OSError):  # there are file systems without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        temporary = Path(name)
        if temporary.exists():
            return handle, temporary
        os.close(handle)  # another process swept it up before it was locked


def _sweep(folder: Path) -> None:
    """Remove the temporary files in a folder that no process holds a lock on."""
    for name in os.listdir(folder):  # noqa: PTH208 - of paths there may be many
        if _LEFT.fullmatch(name):
            with contextlib.suppress(OSError), (folder / name).open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (folder / name).unlink()
