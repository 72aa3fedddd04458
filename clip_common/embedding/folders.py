"""The storage of a store's files: a local folder, or a prefix in a bucket."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import RequestError
from ..system.addresses import BUCKETS, is_address, scheme_of
from ..system.output import atomic_file, held_folder, reason_of
from ..system.secrets import holds_access, without_secrets

PART = re.compile(r"part-(\d{6})\.parquet")
"""The name of a part of a store."""

_INDEX_BEGINS = b"ARROW1"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


class Folder(Protocol):
    """A flat folder of files. All methods raise OSError on failure."""

    def names(self) -> list[str]:
        """Names of the files, sorted; empty if the folder does not exist yet."""

    def opened(self, name: str) -> AbstractContextManager[Any]:
        """Open a file for reading."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically."""

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

    def held(self) -> AbstractContextManager[None]:
        """Keep other writers out, for the block."""


def folder_at(place: Path | str) -> Folder:
    """The folder at a path or an address.

    Raises:
        RequestError: an address with an unsupported scheme.
    """
    text = str(place)
    if not is_address(text):
        return LocalFolder(Path(place).absolute())
    if scheme_of(text) not in BUCKETS:
        raise RequestError(
            f"{without_secrets(text)}: embeddings can only be stored in a folder, at s3:// or at gs://"
        )
    bucket, key = bucket_and_key(text)
    return BucketFolder("/".join([f"{scheme_of(text)}://{bucket}", *([key] if key else [])]))


def bucket_and_key(address: str) -> tuple[str, str]:
    """The bucket of an address, and the key in it, without slashes at its end.

    Raises:
        RequestError: there is none; or the library would take the key for another one.
    """
    bucket, _, key = address.split("://", 1)[1].partition("/")
    shown = without_secrets(address)
    if "@" in bucket or holds_access(address):
        raise RequestError(f"{shown}: the address contains credentials; set them in the environment instead")
    if not _BUCKET.fullmatch(bucket):
        expected = f"{scheme_of(address)}://BUCKET/KEY"
        raise RequestError(f"{shown}: {bucket!r} is not a bucket name, expected {expected}")
    key = key.rstrip("/")
    if key and any(part in ("", ".", "..") for part in key.split("/")):
        raise RequestError(
            f"{shown}: a key with an empty part, . or .. between slashes cannot be read: copy it to another "
            "key"
        )
    return bucket, key


def is_store(folder: str) -> bool:
    """Whether embeddings are in a folder of this machine."""
    try:
        return any(map(PART.fullmatch, os.listdir(folder)))  # noqa: PTH208
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return False


def is_index(file: Path | str) -> bool:
    """Whether a file is in the format of an index."""
    try:
        with Path(file).open("rb") as stream:
            return stream.read(len(_INDEX_BEGINS)) == _INDEX_BEGINS
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return False


@dataclass(frozen=True)
class LocalFolder:
    """A folder on a local disk or a network file system."""

    path: Path

    def names(self) -> list[str]:
        """See `Folder`."""
        return sorted(os.listdir(self.path)) if self.path.is_dir() else []  # noqa: PTH208

    def opened(self, name: str) -> AbstractContextManager[Any]:
        """See `Folder`."""
        return (self.path / name).open("rb")  # Arrow cannot open a path that is not UTF-8

    def write(self, name: str, content: bytes) -> None:
        """See `Folder`."""
        with atomic_file(self.path / name) as temporary:
            temporary.write_bytes(content)

    def remove(self, name: str) -> None:
        """See `Folder`."""
        (self.path / name).unlink(missing_ok=True)

    def held(self) -> AbstractContextManager[None]:
        """Lock the folder, see `held_folder`."""
        return held_folder(self.path)


_WRITER = ".writer"


@dataclass(frozen=True)
class BucketFolder:
    """The objects below a prefix in a bucket.

    Buckets have no locks that end with a process. Instead, a writer stores a mark of its own when it begins,
    and checks it before each write: a writer that finds another mark stops, so the later of two continues.
    """

    address: str
    mark: bytes = field(default_factory=lambda: uuid.uuid4().hex.encode())

    def names(self) -> list[str]:
        """See `Folder`."""
        from . import buckets

        return buckets.names_in(self.address)

    def opened(self, name: str) -> AbstractContextManager[Any]:
        """See `Folder`."""
        from . import buckets

        return buckets.opened(f"{self.address}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """See `Folder`."""
        from . import buckets

        self._require_mark()
        buckets.write(f"{self.address}/{name}", content)

    def remove(self, name: str) -> None:
        """See `Folder`."""
        from . import buckets

        self._require_mark()
        buckets.remove(f"{self.address}/{name}")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Store the mark of this writer, and remove it at the end.

        Raises:
            RequestError: the prefix is not writable.
        """
        from . import buckets

        try:
            buckets.write(f"{self.address}/{_WRITER}", self.mark)
        except OSError as error:
            raise RequestError(f"{self.address} cannot be written ({reason_of(error)})") from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # another writer has taken over
                self.remove(_WRITER)

    def _require_mark(self) -> None:
        with contextlib.suppress(FileNotFoundError), self.opened(_WRITER) as stream:
            if stream.read() == self.mark:
                return
        raise OSError(errno.EBUSY, "another process is writing there")
