"""A file in memory that limits the number of reads.

Pillow parses headers chunk by chunk in Python: a small file with millions of empty chunks, markers or fill
bytes would take minutes.
"""

from __future__ import annotations

import io

from ..errors import ImageError


class TooManyPartsError(ImageError):
    """A file with more parts than any real image."""


class BoundedReader(io.BytesIO):
    """A file in memory that can be read a limited number of times.

    Args:
        content: the bytes of the file.
        reads: maximum number of calls of `read`.
    """

    def __init__(self, content: bytes | bytearray | memoryview, reads: int) -> None:
        super().__init__(content)
        self._left = reads

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as usual.

        Raises:
            TooManyPartsError: the limit is exceeded.
        """
        if not self._left:
            raise TooManyPartsError("the file has more parts than any image needs")
        self._left -= 1
        return super().read(size)
