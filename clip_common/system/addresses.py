"""Addresses, `s3://bucket/key` or `https://host/path`, beside paths: which is which."""

from __future__ import annotations

import re

MOST_BYTES = 128 << 20
"""Of an image from another machine: as many as there are threads must fit into memory."""

BUCKETS = ("s3", "gs")
WEB = ("https", "http")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def scheme_of(text: str) -> str:
    """The scheme of an address, in lower case; empty for a path."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def is_address(text: str) -> bool:
    """Whether it is an address and no path."""
    return bool(scheme_of(text))


def too_large(size: int, most: int) -> str:
    """What is said of something that has more bytes than are taken."""
    return f"has {size:,} bytes, at most {most:,} are taken"
