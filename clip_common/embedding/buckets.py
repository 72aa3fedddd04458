"""Objects in buckets, `s3://bucket/key` and `gs://bucket/key`, through Arrow's file systems.

Errors of the services become an `OSError` whose `strerror` explains what is wrong, see `bucket_services.py`.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob
import io
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import fs

from ..errors import ImageError
from ..system.addresses import MOST_BYTES, scheme_of, too_large
from ..system.secrets import without_secrets
from .bucket_services import NOTHING, resolve, with_retries
from .folders import bucket_and_key


@dataclass(frozen=True)
class Object:
    """An object of a bucket.

    Attributes:
        modified: when it was last written, in nanoseconds.
    """

    address: str
    size: int
    modified: int


def objects_at(address: str) -> list[Object]:
    """The object at an address, or all objects below it, sorted by name.

    There is no request per object: one listing request describes a thousand objects.

    Raises:
        RequestError: invalid address of a bucket.
        FileNotFoundError: there are no objects.
        OSError: the objects cannot be listed.
    """
    system, path = resolve(address)
    if "/" in path:
        there = with_retries(lambda: system.get_file_info(path), address)
        if there.type == fs.FileType.File:
            return [_object(address, there)]
        if there.type == fs.FileType.NotFound:
            raise FileNotFoundError(errno.ENOENT, NOTHING)
    found = with_retries(lambda: system.get_file_info(fs.FileSelector(path, recursive=True)), address)
    scheme = scheme_of(address)
    files = [info for info in found if info.type == fs.FileType.File and not info.path.endswith("/")]
    return sorted((_object(f"{scheme}://{info.path}", info) for info in files), key=lambda one: one.address)


def matches_of(pattern: str) -> list[Object]:
    """The objects whose keys match a glob, sorted by name. Wildcards do not match slashes.

    Raises:
        RequestError, OSError: as `objects_at`.
    """
    bucket, key = bucket_and_key(pattern)
    wanted = [bucket, *key.split("/")]
    plain = "/".join(itertools.takewhile(lambda part: not glob.has_magic(part), wanted))
    return [
        found
        for found in objects_at(f"{scheme_of(pattern)}://{plain}")
        if _matches(found.address.split("://", 1)[1].split("/"), wanted)
    ]


def _matches(parts: list[str], wanted: list[str]) -> bool:
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def names_in(address: str) -> list[str]:
    """The names of the objects directly below an address; empty if there are none.

    Raises:
        RequestError, OSError: as `objects_at`.
    """
    system, path = resolve(address)
    found = with_retries(lambda: system.get_file_info(fs.FileSelector(path, allow_not_found=True)), address)
    return sorted(info.base_name for info in found if info.type == fs.FileType.File)


def read(address: str, offset: int = 0, size: int | None = None) -> bytes:
    """Read the bytes of an image: an object, or `size` bytes of it at `offset`.

    Raises:
        ImageError: they are more than are taken.
        RequestError, OSError: they cannot be had.
    """
    if size is None and scheme_of(address) == "gs":
        return _read_from_google(address)
    with opened(address) as stream:
        wanted = stream.size - offset if size is None else size
        if wanted > MOST_BYTES:
            raise _too_large(address, wanted)
        stream.seek(offset)
        content = stream.take(wanted)
    if len(content) < wanted:
        raise OSError(errno.EIO, "it ends before the image does")
    return content


def _read_from_google(address: str) -> bytes:
    """An object in one request. `opened` first asks while it holds Python's lock, so all threads wait."""
    system, path = resolve(address)

    def get() -> bytearray:
        content = bytearray()
        with system.open_input_stream(path) as stream:
            while chunk := stream.read(1 << 20):
                content += chunk
                if len(content) > MOST_BYTES:
                    raise _too_large(address, len(content))
        return content

    return bytes(with_retries(get, address))


def _too_large(address: str, size: int) -> ImageError:
    return ImageError(f"{without_secrets(address)}: {too_large(size, MOST_BYTES)}")


@contextlib.contextmanager
def opened(address: str) -> Iterator[_Reader]:
    """Open an object for reading, with random access.

    Raises:
        RequestError, OSError: it cannot be had.
    """
    system, path = resolve(address)
    with with_retries(lambda: system.open_input_file(path), address) as stream:
        yield _Reader(stream, address)


def write(address: str, content: bytes) -> None:
    """Write an object atomically; replaces an existing one.

    Raises:
        RequestError, OSError: it cannot be written.
    """
    system, path = resolve(address)

    def put() -> None:
        stream = system.open_output_stream(path)
        stream.write(content)  # all of it at once: were it cut short, closing would make an object of that
        stream.close()

    with_retries(put, address)


def remove(address: str) -> None:
    """Remove an object, if it exists.

    Raises:
        RequestError, OSError: that is not possible.
    """
    system, path = resolve(address)
    with contextlib.suppress(FileNotFoundError):
        with_retries(lambda: system.delete_file(path), address)


class _Reader(io.RawIOBase):
    """An object as a file for reading; failed requests are repeated.

    Attributes:
        size: in bytes.
    """

    def __init__(self, stream: pa.NativeFile, address: str) -> None:
        self._stream, self._address, self._place = stream, address, 0
        self.size: int = stream.size()

    def readable(self) -> bool:
        """See `io`."""
        return True

    def seekable(self) -> bool:
        """See `io`."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See `io`."""
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence]
        return self._place

    def tell(self) -> int:
        """See `io`."""
        return self._place

    def readall(self) -> bytes:
        """See `io`."""
        return self.take(self.size)

    def readinto(self, buffer: Any) -> int:
        """See `io`."""
        content = self.take(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def take(self, count: int) -> bytes:
        """Read the next bytes in one request; fewer at the end of the object."""
        if self._place >= self.size:  # here, the library would raise
            return b""
        content = with_retries(lambda: self._stream.read_at(count, self._place), self._address)
        self._place += len(content)
        return content


def _object(address: str, info: fs.FileInfo) -> Object:
    return Object(address, info.size, info.mtime_ns or 0)
