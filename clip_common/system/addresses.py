"""Distinguishes addresses (`s3://bucket/key`, `https://host/path`) from paths."""

from __future__ import annotations

import re

MOST_BYTES = 128 << 20
"""Size limit for an image read from an address: each thread may hold one in memory."""

BUCKETS = ("s3", "gs")
WEB = ("https", "http")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def scheme_of(text: str) -> str:
    """The scheme of an address in lower case, such as "s3"; empty for a path."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def is_address(text: str) -> bool:
    """Whether a text is an address, not a path."""
    return bool(scheme_of(text))


def too_large(size: int, most: int) -> str:
    """The error message for something with more bytes than allowed."""
    return f"has {size:,} bytes, at most {most:,} are allowed"
