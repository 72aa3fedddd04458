"""Where the cache is, how files get into it whole, and hashes that are not computed twice.

The cache only saves time: where it cannot be written, that costs speed and a warning, never the answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .log import logger
from .names import user_path


def cache_dir() -> Path:
    """`CLIP_HUB_CACHE`, by default `clip_hub` in the user's cache directory. It may not exist yet."""
    if chosen := os.environ.get("CLIP_HUB_CACHE"):
        return user_path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "clip_hub"


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends, and vanishes if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Turn a failure to use the cache into a warning."""
    try:
        yield
    except OSError as error:
        logger.warning(
            "%s is not kept in the cache %s (%s); set CLIP_HUB_CACHE to a folder that can be written",
            what,
            cache_dir(),
            error.strerror or error,
        )


def sha256_of(path: Path) -> str:
    """A file's hash, remembered in the cache by its path, size and time of change."""
    path = path.resolve()
    status = path.stat()
    stamp = {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    note = cache_dir() / "hashes" / f"{digest_of(str(path))[:32]}.json"
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(note.read_text("utf-8"))
        if isinstance(known, dict) and {**stamp, "sha256": known.get("sha256")} == known and known["sha256"]:
            return known["sha256"]
    with path.open("rb") as file:
        sha256 = hash_stream(file)
    with best_effort(f"the hash of {path.name}"), atomic_file(note) as temporary:
        temporary.write_text(json.dumps({**stamp, "sha256": sha256}), "utf-8")
    return sha256


def hash_stream(file: object) -> str:
    """The sha256 of what is left of a binary file, in bounded memory."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):  # type: ignore[attr-defined]
        digest.update(chunk)
    return digest.hexdigest()


def digest_of(text: str) -> str:
    """The sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def touch(path: Path) -> None:
    """Remember when a file or folder of the cache was last used; a read-only cache is never pruned."""
    with contextlib.suppress(OSError):
        os.utime(path)


def prune(folder: Path, keep: int) -> None:
    """Remove the files of a folder that were longest unused, beyond the newest `keep`."""
    files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in files[keep:]:
        file.unlink(missing_ok=True)
