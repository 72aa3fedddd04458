"""Temporary folders. If a process is killed, the next one that creates such a folder removes them."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "clip_hub_scratch_"
_LOCK = ".clip_hub_scratch"  # locked while the folder is in use; a folder without it is not ours
_DAY = 24 * 3600  # seconds


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder that is removed when the context ends."""
    folder, handle = _make()
    try:
        yield folder
    finally:
        _remove(folder, handle)


def scratch_folder_of_process() -> Path:
    """A temporary folder that is removed when this process ends."""
    folder, handle = _make()
    atexit.register(_remove, folder, handle)
    return folder


def _make() -> tuple[Path, int]:
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    handle = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR)
    with contextlib.suppress(OSError):  # there are file systems without locks
        fcntl.flock(handle, fcntl.LOCK_EX)
    return folder, handle


def _remove(folder: Path, handle: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)


def _sweep(place: Path) -> None:
    """Remove this user's folders that are older than a day and that no process holds a lock on."""
    for folder in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > _DAY:
                with (folder / _LOCK).open("rb+") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
