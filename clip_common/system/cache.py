"""The cache folder, and file hashes that are remembered in it.

The cache only saves time: if it cannot be written, the user gets a warning, and the same result more slowly.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .file_names import user_path
from .log import logger
from .output import atomic_file, reason_of

_TICKS = 2_000_000_000  # nanoseconds; the clocks of file systems are coarse, some count whole seconds


def cache_dir() -> Path:
    """`CLIP_HUB_CACHE`, by default `clip_hub` in the user's cache directory. It may not exist yet."""
    if chosen := os.environ.get("CLIP_HUB_CACHE"):
        return user_path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else home() / ".cache") / "clip_hub"


def home() -> Path:
    """The user's home folder; /nonexistent, which is not writable, for a user without one."""
    found = user_path("~")
    return found if found.is_absolute() else Path("/nonexistent")


def hub_home() -> Path:
    """PaddleHub's home, where `hub install` puts modules."""
    return Path(os.environ.get("HUB_HOME") or home() / ".paddlehub")


@contextlib.contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Turn an OSError while writing to the cache into a warning.

    Args:
        what: what is being cached, for the warning.
    """
    try:
        yield
    except OSError as error:
        logger.warning(
            "%s is not kept in the cache %s (%s); set CLIP_HUB_CACHE to a folder that can be written",
            what,
            cache_dir(),
            reason_of(error),
        )


def sha256_of(path: Path) -> str:
    """The sha256 of a file, remembered in the cache until the file changes.

    A change is detected by path, size, inode, mtime and ctime. Size and mtime alone are not enough: archives
    and `rsync -t` set the mtime; nothing can set the ctime. The hash of a file that has just changed is not
    remembered, because the file could change again within the resolution of the file system's clock.
    """
    path = path.resolve()
    note = cache_dir() / "hashes" / f"{digest_of(str(path))[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        known = json.loads(note.read_text("utf-8"))
        sha256 = known.pop("sha256") if isinstance(known, dict) else None
        if sha256 and known == _stamp(path):
            return sha256
    now, stamp = time.time_ns(), _stamp(path)
    sha256 = content_sha256(path)
    if stamp == _stamp(path) and now - stamp["ctime_ns"] > _TICKS:
        with best_effort(f"the hash of {path.name}"), atomic_file(note) as temporary:
            temporary.write_text(json.dumps({**stamp, "sha256": sha256}), "utf-8")
    return sha256


def _stamp(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {
        "path": str(path),
        "size": status.st_size,
        "inode": status.st_ino,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }


def content_sha256(path: Path) -> str:
    """The sha256 of a file, always computed from its content."""
    with path.open("rb") as file:
        return hash_stream(file)


def hash_stream(file: BinaryIO) -> str:
    """The sha256 of a binary file from its current position on, in bounded memory."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def digest_of(text: str) -> str:
    """The sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def touch(path: Path) -> None:
    """Mark a file or folder of the cache as used now; no effect in a read-only cache."""
    with contextlib.suppress(OSError):
        os.utime(path)


def prune(folder: Path, most_bytes: int) -> None:
    """Remove the least recently used files of a folder until at most `most_bytes` are left."""
    files = []
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process prunes too
            status = file.stat()
            files.append((status.st_mtime_ns, status.st_size, file))
    total = 0
    for _, size, file in sorted(files, reverse=True):
        total += size
        if total > most_bytes:
            file.unlink(missing_ok=True)


# --- keys ---------------------------------------------------------------------------------------------


@functools.cache
def source_digest(*folders: str) -> str:
    """The hash of all files in folders of this package; part of the key of whatever that code computes."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for file in sorted(file for folder in folders for file in (package / folder).rglob("*")):
        if file.is_file() and file.suffix != ".pyc":
            digest.update(f"{file.relative_to(package)} {content_sha256(file)} ".encode())
    return digest.hexdigest()


@functools.cache
def versions(*distributions: str) -> tuple[str | None, ...]:
    """The installed versions of some distributions; None for one that is not installed."""
    return tuple(map(_version, distributions))


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
