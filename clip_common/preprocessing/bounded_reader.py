"""An image file in memory whose parts are counted while it is read.

Pillow reads headers piece by piece in Python: a small file of millions of empty chunks, markers or fill bytes
would keep it busy for minutes.
"""

from __future__ import annotations

import io

from ..errors import ImageError


class TooManyPartsError(ImageError):
    """A file that is in more pieces than any image has."""


class BoundedReader(io.BytesIO):
    """A file that can be read so many times.

    Args:
        content: the file.
        reads: how often a piece of it may be read.
    """

    def __init__(self, content: bytes | bytearray | memoryview, reads: int) -> None:
        super().__init__(content)
        self._left = reads

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file does.

        Raises:
            TooManyPartsError: it was read too often.
        """
        if not self._left:
            raise TooManyPartsError("the file is in more pieces than any image has")
        self._left -= 1
        return super().read(size)
