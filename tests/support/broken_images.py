"""Images that Pillow can open but not load, each failing with another kind of exception."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks: bytes) -> bytes:
    """A PNG file of these chunks and the end chunk."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def header(colours: int, side: int = 16) -> bytes:
    """The header chunk of a square PNG with `side` pixels per side."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, colours, 0, 0, 0))


def two_headers(first: int, transparency: bytes, second: int, bands: int) -> bytes:
    """A PNG with two different headers."""
    rows = zlib.compress((b"\0" + bytes(16 * bands)) * 16)
    return png(header(first), chunk(b"tRNS", transparency), header(second), chunk(b"IDAT", rows))


PALETTE_THEN_COLOURS = two_headers(3, b"\0\x10\xff", 2, 3)
"""Fails in `convert` with a TypeError."""


def with_exif(exif: bytes) -> bytes:
    """A valid PNG with this EXIF."""
    buffer = io.BytesIO()
    Image.new("RGB", (70, 90)).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def ico(inner: bytes, side: int = 16) -> bytes:
    """An icon file with one image, whose own size may differ from `side`."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, side, side, 0, 0, 1, 32, len(inner), 22) + inner


def tiled(tile: int) -> bytes:
    """A TIFF of 64 x 64 pixels in one much larger tile."""
    content = zlib.compress(bytes(tile * tile))
    tags = [(256, 64), (257, 64), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile), (323, tile)]
    begins = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags += [(324, begins), (325, len(content))]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4) + content
