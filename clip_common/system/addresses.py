"""Addresses, `s3://bucket/key` or `https://host/path`, beside paths: which is which, and what is shown."""

from __future__ import annotations

import re

from ..errors import RequestError

MOST_BYTES = 128 << 20
"""Of an image from another machine: as many as there are threads must fit into memory."""

BUCKETS = ("s3", "gs")
WEB = ("https", "http")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_USER = re.compile(r"(?<=://)[^/?#]*@")
# Of a query: what gives access for a while, as S3, Google, Azure, Alibaba and Tencent sign addresses.
_SECRET = re.compile(
    r"x-(amz|goog|oss|cos)-.*|q-(sign|ak|key|header|url|signature).*|.*signature|.*token|expires|"
    r".*accesskeyid|googleaccessid|key-pair-id|policy|sig|(api|access|secret)[-_]?key|password|secret",
    re.IGNORECASE,
)


def scheme_of(text: str) -> str:
    """The scheme of an address, in lower case; empty for a path."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def is_address(text: str) -> bool:
    """Whether it is an address and no path."""
    return bool(scheme_of(text))


def without_secrets(address: str) -> str:
    """An address as it may be printed and kept: without a password, and without a signature.

    It stays the same when the address is signed anew.
    """
    if scheme_of(address) not in WEB:
        return _USER.sub("", address)
    rest, _, query = _USER.sub("", address).partition("#")[0].partition("?")
    kept = [one for one in query.split("&") if one and not _SECRET.fullmatch(one.partition("=")[0])]
    scheme, host, path = _parts(rest)
    return f"{scheme}://{host}{path}" + (f"?{'&'.join(kept)}" if kept else "")


def too_large(size: int, most: int) -> str:
    """What is said of something that has more bytes than are taken."""
    return f"has {size:,} bytes, at most {most:,} are taken"


def bucket_and_key(address: str) -> tuple[str, str]:
    """The bucket of an address, and the key in it, without slashes at its end.

    Raises:
        RequestError: there is none; or the library would take the key for another one.
    """
    bucket, _, key = address.split("://", 1)[1].partition("/")
    shown = without_secrets(address)
    if "@" in bucket:
        raise RequestError(f"{shown}: credentials stand in the address; they belong into the environment")
    if not _BUCKET.fullmatch(bucket):
        expected = f"{scheme_of(address)}://BUCKET/KEY"
        raise RequestError(f"{shown}: {bucket!r} is no name of a bucket, expected {expected}")
    key = key.rstrip("/")
    if key and any(part in ("", ".", "..") for part in key.split("/")):
        raise RequestError(
            f"{shown}: a key with nothing, . or .. between slashes cannot be read: copy it to another key"
        )
    return bucket, key


def _parts(address: str) -> tuple[str, str, str]:
    """Scheme and host in lower case, and what follows them."""
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return scheme.lower(), host.lower(), slash + path
