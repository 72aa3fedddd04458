"""Objects in buckets, `s3://bucket/key` and `gs://bucket/key`, through Arrow's file systems.

Who asks, and whom, stands in the environment, as their own tools read it; see docs/buckets.md. The services'
errors become an `OSError` whose `strerror` says in words what is wrong.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

import pyarrow as pa
from pyarrow import fs

from ..errors import ImageError, RequestError
from ..system.addresses import scheme_of, without_secrets

MOST_BYTES = 128 << 20  # of an image; that many threads' worth must fit into memory
_ATTEMPTS = 10  # 25 ms after the first, twice as long after each: half a minute in all
_CONNECT_TIMEOUT = 10  # seconds
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_TRUE = ("1", "true", "yes")
_CODE = re.compile(r"AWS Error ([A-Z_]+)|google::cloud::Status\(([A-Z_]+)")
_CREDENTIALS = "the credentials in the environment are not accepted"
_BUSY = "the service is overloaded; later may do"
_REASONS = {
    "ACCESS_DENIED": "access denied: credentials come from the environment, and may lack this right",
    "PERMISSION_DENIED": "access denied: credentials come from the environment, and may lack this right",
    "NO_SUCH_BUCKET": "there is no such bucket",
    "NO_SUCH_KEY": "there is no such object",
    "RESOURCE_NOT_FOUND": "there is no such object",
    "NOT_FOUND": "there is no such bucket or object",
    "NETWORK_CONNECTION": "the service cannot be reached",
    "REQUEST_TIMEOUT": "the service does not answer",
    "DEADLINE_EXCEEDED": "the service does not answer",
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
    "UNAVAILABLE": "the service cannot be reached",
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
    """The object of an address, or all that are below it, in order of their names.

    Nothing is asked of each object: a listing says what is needed of a thousand.

    Raises:
        RequestError: it is no address of a bucket.
        FileNotFoundError: there is nothing.
        OSError: it cannot be listed.
    """
    system, path = _resolve(address)
    with in_words():
        there = None if path.endswith("/") or "/" not in path else system.get_file_info(path)
        if there is not None and there.type == fs.FileType.File:
            return [_object(address, there)]
        if there is not None and there.type == fs.FileType.NotFound:
            raise FileNotFoundError
        found = system.get_file_info(fs.FileSelector(path, recursive=True))
    scheme = scheme_of(address)
    files = [info for info in found if info.type == fs.FileType.File and not info.path.endswith("/")]
    return sorted((_object(f"{scheme}://{info.path}", info) for info in files), key=lambda one: one.address)


def names_in(address: str) -> list[str]:
    """The names of the objects directly below an address; none where there is nothing.

    Raises:
        RequestError, OSError: as `objects_at`.
    """
    system, path = _resolve(address)
    with in_words():
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == fs.FileType.File)


def read(address: str) -> bytes:
    """An image's bytes.

    Raises:
        ImageError: they are more than are taken.
        RequestError, OSError: they cannot be had.
    """
    with opened(address) as stream:
        if stream.size() > MOST_BYTES:
            raise ImageError(f"{without_secrets(address)}: {too_large(stream.size())}")
        return stream.read()


def too_large(size: int) -> str:
    """What is said of an image of so many bytes."""
    return f"has {size:,} bytes, at most {MOST_BYTES:,} are taken"


@contextlib.contextmanager
def opened(address: str) -> Iterator[pa.NativeFile]:
    """An object to read from, anywhere in it.

    Raises:
        RequestError, OSError: it cannot be had.
    """
    system, path = _resolve(address)
    if fault := fault_of_key(address):
        raise OSError(errno.EINVAL, fault)
    with in_words(), system.open_input_file(path) as stream:
        yield stream


def write(address: str, content: bytes) -> None:
    """Put an object in the place of the one that was there; nobody ever sees a part of it.

    Raises:
        RequestError, OSError: it cannot be written.
    """
    system, path = _resolve(address)
    with in_words():
        stream = system.open_output_stream(path)
        stream.write(content)  # all of it at once: were it cut short, closing would make an object of that
        stream.close()


def remove(address: str) -> None:
    """Take an object away; it need not be there.

    Raises:
        RequestError, OSError: that is not possible.
    """
    system, path = _resolve(address)
    with contextlib.suppress(FileNotFoundError), in_words():
        system.delete_file(path)


def fault_of_key(address: str) -> str | None:
    """Why the object of such a key cannot be had; the library would ask for another one, or not at all."""
    if any(part in ("", ".", "..") for part in address.split("://", 1)[1].split("/")):
        return "a key with an empty part, . or .. between slashes cannot be read: copy it to another key"
    return None


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """Turn the services' errors into an `OSError` in words; all others pass."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "there is no such object") from None
    except OSError as error:
        code = _CODE.search(str(error))
        if code is None:
            raise
        name = code[1] or code[2]
        reason = _REASONS.get(name) or f"{name.lower().replace('_', ' ')}{_status(str(error))}"
        raise OSError(errno.EIO, reason) from None


def _status(message: str) -> str:
    """The number that a service answered with, where the library has no name for it."""
    found = re.search(r"HTTP status (\d+)|HTTP response code: (\d+)", message)
    return f" ({found[1] or found[2]})" if found else ""


def _object(address: str, info: fs.FileInfo) -> Object:
    return Object(address, info.size, info.mtime_ns or 0)


def _resolve(address: str) -> tuple[fs.FileSystem, str]:
    """The file system of an address, and the path in it."""
    scheme, (bucket, slash, key) = scheme_of(address), address.split("://", 1)[1].partition("/")
    if "@" in bucket:
        raise RequestError(
            f"{without_secrets(address)}: credentials stand in the address; they belong into the environment"
        )
    if not _BUCKET.fullmatch(bucket):
        raise RequestError(f"{address}: {bucket!r} is no name of a bucket, expected {scheme}://BUCKET/KEY")
    with in_words():
        return _system(scheme, bucket), f"{bucket}{slash}{key}" if key else bucket


@lru_cache(maxsize=100)
def _system(scheme: str, bucket: str) -> fs.FileSystem:
    anonymous = _is_set("CLIP_HUB_ANONYMOUS")
    if scheme == "gs":
        return fs.GcsFileSystem(
            anonymous=anonymous,
            retry_time_limit=timedelta(seconds=30),
            **_endpoint("STORAGE_EMULATOR_HOST"),
        )
    endpoint = _endpoint("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region and not endpoint:
        region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        anonymous=anonymous,
        region=region or "us-east-1",
        connect_timeout=_CONNECT_TIMEOUT,
        retry_strategy=fs.AwsDefaultS3RetryStrategy(max_attempts=_ATTEMPTS),
        force_virtual_addressing=_is_set("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"),
        **endpoint,
    )


def _endpoint(*variables: str) -> dict[str, str]:
    """The service that the first of these variables names, as the file systems take it."""
    given = next((value for name in variables if (value := os.environ.get(name))), "")
    scheme, mark, host = given.rpartition("://")
    if not given:
        return {}
    return {"endpoint_override": host.rstrip("/"), "scheme": scheme.lower() if mark else "https"}


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in _TRUE
