"""A limit on the scans of a JPEG.

The decoder goes over the whole image for each scan, even if the scan has two bytes: a file of 30 KB with
thousands of them would take minutes. Progressive photographs have some ten.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from .bounded_reader import TooManyPartsError

JPEG = b"\xff\xd8\xff"
_MOST = 100  # as in libtiff and libvips
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")  # it begins a segment, or ends the image
_END, _SCAN = 0xD9, 0xDA
_SIZES = {0xC0, 0xC1, 0xC3, 0xC9, 0xCB}  # of images that may have all components in one scan


def check_scans(stream: BinaryIO) -> None:
    """Check the number of scans of a JPEG.

    Raises:
        TooManyPartsError: it has too many.
    """
    stream.seek(2)  # the marker after the first
    content = stream.read()
    scans, components, place = 0, b"", 0
    while found := _MARKER.search(content, place):
        marker, segment = found[1][0], content[found.end() : found.end() + 8]
        if marker == _END:
            return
        if marker in _SIZES:
            components = segment[7:8]
        if marker == _SCAN:
            if segment[2:3] == components:
                return  # all components are in this scan: another would be an error
            scans += 1
            if scans > _MOST:
                raise TooManyPartsError(f"the JPEG has more than {_MOST} scans, and no photograph has")
        place = found.end() + int.from_bytes(segment[:2], "big")
