"""Objects in buckets, `s3://bucket/key` and `gs://bucket/key`, through Arrow's file systems.

Credentials and endpoints come from the environment variables of the services' own tools; see docs/buckets.md.
Errors of the services become an `OSError` whose `strerror` explains what is wrong.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob
import io
import itertools
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from ..errors import ImageError, RequestError
from ..system import prefetch
from ..system.addresses import MOST_BYTES, scheme_of, too_large
from ..system.secrets import hide_secrets, without_secrets
from .folders import bucket_and_key

Made = TypeVar("Made")

_ATTEMPTS = 6  # up to half a second after the first, twice as long after each
_LIBRARY_ATTEMPTS = 3  # within each; it gives up at once where an answer is shorter than its error
_GOOGLE_PATIENCE = timedelta(seconds=5)  # of the library's own attempts
_CONNECT_TIMEOUT = 10  # seconds
_HOST = re.compile(r"[\w.-]+(:\d+)?|\[[\da-fA-F:]+\](:\d+)?")
_ENDPOINTS = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gs": ("STORAGE_EMULATOR_HOST",)}
_OWNERS = {"s3": "Amazon S3", "gs": "Google Cloud Storage"}
_TRUE = ("1", "true", "yes")
_CODE = re.compile(r"AWS Error ([A-Z_]+)|google::cloud::Status\(([A-Z_]+)")
_MAY_PASS = re.compile("SLOW_DOWN|UNAVAILABLE|INTERNAL|THROTTL|NETWORK|TIMEOUT|EXCEEDED|EXHAUSTED|(429|5..)")
_CREDENTIALS = "the credentials in the environment are not accepted"
_NOTHING = "there is no such object"
_BUSY = "the service is overloaded; try again later"
_UNREACHABLE = "the service cannot be reached"
_SILENT = "the service does not answer"
_REASONS = {
    "ACCESS_DENIED": "access denied: credentials come from the environment, and may lack this right",
    "PERMISSION_DENIED": "access denied: credentials come from the environment, and may lack this right",
    "NO_SUCH_BUCKET": "there is no such bucket",
    "NO_SUCH_KEY": _NOTHING,
    "RESOURCE_NOT_FOUND": _NOTHING,
    "NOT_FOUND": "there is no such bucket or object",
    "NETWORK_CONNECTION": _UNREACHABLE,
    "REQUEST_TIMEOUT": _SILENT,
    "DEADLINE_EXCEEDED": _SILENT,
    "INVALID_ACCESS_KEY_ID": _CREDENTIALS,
    "SIGNATURE_DOES_NOT_MATCH": _CREDENTIALS,
    "INVALID_SIGNATURE": _CREDENTIALS,
    "INVALID_CLIENT_TOKEN_ID": _CREDENTIALS,
    "UNRECOGNIZED_CLIENT": _CREDENTIALS,
    "UNAUTHENTICATED": _CREDENTIALS,
    "SLOW_DOWN": _BUSY,
    "SERVICE_UNAVAILABLE": _BUSY,
    "INTERNAL_FAILURE": _BUSY,
    "THROTTLING": _BUSY,
    "UNAVAILABLE": _UNREACHABLE,
    "RESOURCE_EXHAUSTED": _BUSY,
}


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
    system, path = _resolve(address)
    if "/" in path:
        there = _with_retries(lambda: system.get_file_info(path), address)
        if there.type == fs.FileType.File:
            return [_object(address, there)]
        if there.type == fs.FileType.NotFound:
            raise FileNotFoundError(errno.ENOENT, _NOTHING)
    found = _with_retries(lambda: system.get_file_info(fs.FileSelector(path, recursive=True)), address)
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
    system, path = _resolve(address)
    found = _with_retries(lambda: system.get_file_info(fs.FileSelector(path, allow_not_found=True)), address)
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
    system, path = _resolve(address)

    def get() -> bytearray:
        content = bytearray()
        with system.open_input_stream(path) as stream:
            while chunk := stream.read(1 << 20):
                content += chunk
                if len(content) > MOST_BYTES:
                    raise _too_large(address, len(content))
        return content

    return bytes(_with_retries(get, address))


def _too_large(address: str, size: int) -> ImageError:
    return ImageError(f"{without_secrets(address)}: {too_large(size, MOST_BYTES)}")


@contextlib.contextmanager
def opened(address: str) -> Iterator[_Reader]:
    """Open an object for reading, with random access.

    Raises:
        RequestError, OSError: it cannot be had.
    """
    system, path = _resolve(address)
    with _with_retries(lambda: system.open_input_file(path), address) as stream:
        yield _Reader(stream, address)


def write(address: str, content: bytes) -> None:
    """Write an object atomically; replaces an existing one.

    Raises:
        RequestError, OSError: it cannot be written.
    """
    system, path = _resolve(address)

    def put() -> None:
        stream = system.open_output_stream(path)
        stream.write(content)  # all of it at once: were it cut short, closing would make an object of that
        stream.close()

    _with_retries(put, address)


def remove(address: str) -> None:
    """Remove an object, if it exists.

    Raises:
        RequestError, OSError: that is not possible.
    """
    system, path = _resolve(address)
    with contextlib.suppress(FileNotFoundError):
        _with_retries(lambda: system.delete_file(path), address)


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
        content = _with_retries(lambda: self._stream.read_at(count, self._place), self._address)
        self._place += len(content)
        return content


def _with_retries(action: Callable[[], Made], address: str) -> Made:
    """Run a request to the service of an address; retry errors that may be temporary.

    Raises:
        OSError: the request fails; `strerror` explains why.
    """
    for attempt in itertools.count():
        try:
            return action()
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, _NOTHING) from None
        except (OSError, pa.ArrowException) as error:
            code, reason = _in_words(str(error))
            if attempt + 1 == _ATTEMPTS or not _MAY_PASS.search(code):
                if reason in (_UNREACHABLE, _SILENT):
                    reason += f": {_service(scheme_of(address))}"
                raise OSError(errno.EIO, reason) from None
            prefetch.sleep(2**attempt * (0.25 + random.random() / 4))
    raise AssertionError("the loop is infinite")


def _in_words(message: str) -> tuple[str, str]:
    """The error code in a message of a service, with its HTTP status; and an explanation of it."""
    found = _CODE.search(message)
    if found is None:
        return "", message.splitlines()[0][:200] if message else "for an unknown reason"
    name = found[1] or found[2]
    number = re.search(r"HTTP status (\d+)|HTTP response code: (\d+)", message)
    status = f" ({number[1] or number[2]})" if number else ""
    return name + status, _REASONS.get(
        name
    ) or f"the service answers {name.lower().replace('_', ' ')}{status}"


def _object(address: str, info: fs.FileInfo) -> Object:
    return Object(address, info.size, info.mtime_ns or 0)


def _resolve(address: str) -> tuple[fs.FileSystem, str]:
    """Arrow's file system for an address, and the path in it."""
    bucket, key = bucket_and_key(address)
    system = _with_retries(lambda: _system(scheme_of(address), bucket), address)
    return system, f"{bucket}/{key}" if key else bucket


@lru_cache(maxsize=100)
def _system(scheme: str, bucket: str) -> fs.FileSystem:
    anonymous = _is_set("CLIP_HUB_ANONYMOUS")
    if scheme == "gs":
        return fs.GcsFileSystem(
            anonymous=anonymous,
            retry_time_limit=_GOOGLE_PATIENCE,
            **_endpoint(*_ENDPOINTS["gs"]),
        )
    endpoint = _endpoint(*_ENDPOINTS["s3"])
    if (
        endpoint
    ):  # OSS and others refuse the checksums in chunks that Amazon's library adds; it asks here alone
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region and not endpoint:
        region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        anonymous=anonymous,
        region=region or "us-east-1",
        connect_timeout=_CONNECT_TIMEOUT,
        retry_strategy=fs.AwsDefaultS3RetryStrategy(max_attempts=_LIBRARY_ATTEMPTS),
        force_virtual_addressing=_is_set("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"),
        **endpoint,
    )


def _endpoint(*variables: str) -> dict[str, str]:
    """The service that the first of these variables names, as the file systems take it."""
    variable = _first_set(variables)
    if not variable:
        return {}
    given = os.environ[variable]
    scheme, mark, host = given.rstrip("/").rpartition("://")
    if not _HOST.fullmatch(host) or (mark and scheme.lower() not in ("http", "https")):
        raise RequestError(
            f"{variable} is {hide_secrets(given)!r}, expected https://HOST or https://HOST:PORT"
        )
    return {"endpoint_override": host, "scheme": scheme.lower() if mark else "https"}


def _first_set(variables: tuple[str, ...]) -> str:
    return next((name for name in variables if os.environ.get(name)), "")


def _service(scheme: str) -> str:
    """For a service that does not answer: which one was asked, and what to check."""
    if variable := _first_set(_ENDPOINTS[scheme]):
        return (
            f"{variable} is {os.environ[variable]}; check that it is right, and that a server answers there"
        )
    return (
        f"{_OWNERS[scheme]} was asked; check the network, or set {_ENDPOINTS[scheme][-1]} to the service "
        "that is meant"
    )


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in _TRUE
