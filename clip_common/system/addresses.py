"""Addresses, `s3://bucket/key` or `https://host/path`, beside paths: which is which, and what is shown."""

from __future__ import annotations

import re

BUCKETS = ("s3", "gs")
WEB = ("https", "http")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
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


def _parts(address: str) -> tuple[str, str, str]:
    """Scheme and host in lower case, and what follows them."""
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return scheme.lower(), host.lower(), slash + path
