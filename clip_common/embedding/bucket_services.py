"""The services that hold buckets: which one is asked, and what its errors mean.

Credentials and endpoints come from the environment variables of the services' own tools; see docs/buckets.md.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import re
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from ..errors import RequestError
from ..system import prefetch
from ..system.addresses import scheme_of
from ..system.secrets import hide_secrets
from .folders import bucket_and_key

Made = TypeVar("Made")

NOTHING = "there is no such object"

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
_DENIED = "access denied: credentials come from the environment, and may lack this right"
_CREDENTIALS = "the credentials in the environment are not accepted"
_BUSY = "the service is overloaded; try again later"
_UNREACHABLE = "the service cannot be reached"
_SILENT = "the service does not answer"
_REASONS = {
    "ACCESS_DENIED": _DENIED,
    "PERMISSION_DENIED": _DENIED,
    "NO_SUCH_BUCKET": "there is no such bucket",
    "NO_SUCH_KEY": NOTHING,
    "RESOURCE_NOT_FOUND": NOTHING,
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


def resolve(address: str) -> tuple[fs.FileSystem, str]:
    """Arrow's file system for an address, and the path in it."""
    bucket, key = bucket_and_key(address)
    system = with_retries(lambda: _system(scheme_of(address), bucket), address)
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
    if endpoint:
        # OSS and others refuse the checksums in chunks that Amazon's library adds; it asks here alone.
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


def with_retries(action: Callable[[], Made], address: str) -> Made:
    """Run a request to the service of an address; retry errors that may be temporary.

    Raises:
        OSError: the request fails; `strerror` explains why.
    """
    for attempt in itertools.count():
        try:
            return action()
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, NOTHING) from None
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
    unknown = f"the service answers {name.lower().replace('_', ' ')}{status}"
    return name + status, _REASONS.get(name, unknown)
