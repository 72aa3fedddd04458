"""The size of an image after decoding, which may be larger than its header says."""

from __future__ import annotations

import struct
from typing import BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from .heif import check_length, heif_size, looks_like_heif

_ICO = b"\0\0\1\0"
_PNG = b"\x89PNG\r\n\x1a\n"
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF's tags


def decoded_size(stream: BinaryIO, formats: list[str]) -> tuple[int, int]:
    """Width and height of the largest bitmap that decoding creates, found without decoding.

    Raises:
        Exception: whatever Pillow raises if it cannot open the image.
    """
    head = stream.read(12)
    stream.seek(0)
    if head.startswith(_ICO):  # Pillow decodes it on opening, and by the size inside, not in the header
        return _ico_size(stream, struct.unpack("<H", head[4:6])[0])
    if looks_like_heif(head):
        check_length(stream)
    with Image.open(stream, formats=formats) as image:
        width, height = image.size
        if image.format == "TIFF":  # tiles are decoded completely, and may be larger than the image
            tags = image.tag_v2
            width, height = max(width, tags.get(_TILE_WIDTH, 0)), max(height, tags.get(_TILE_LENGTH, 0))
        is_heif = image.format == "HEIF"
    if is_heif:
        width, height = heif_size(stream)
    stream.seek(0)
    return width, height


def _ico_size(stream: BinaryIO, count: int) -> tuple[int, int]:
    """The size of the largest image in an ICO file, from the headers of its PNGs and bitmaps."""
    stream.seek(6)
    entries = [struct.unpack("<8x2I", stream.read(16)) for _ in range(count)]  # size, offset
    sizes = [(0, 0)]
    for _, offset in entries:
        stream.seek(offset)
        head = stream.read(24)
        if head.startswith(_PNG):
            stream.seek(offset)
            sizes.append(PngImageFile(stream).size)  # of its last header, if it has several
        else:
            width, height = struct.unpack("<4x2i12x", head)
            sizes.append((abs(width), abs(height)))
    stream.seek(0)
    return max(sizes, key=lambda size: size[0] * size[1])
