"""What one HTTP request may ask for at most; `CLIP_HUB_MAX_...` in the environment sets each limit."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields

from ..errors import LimitError, RequestError
from ..preprocessing.bounds import decoded_size
from ..preprocessing.image import readable_formats

_PREFIX = "CLIP_HUB_MAX_"


@dataclass(frozen=True)
class Limits:
    """Limits of a request.

    Attributes:
        pictures: pictures in it.
        picture_bytes: bytes of one picture file.
        pixels: pixels of one picture, checked before it is decoded.
        labels: labels in it.
        prompts: labels times templates, which are so many texts to encode.
        texts: texts to embed in it.
        characters: characters of one label, template or text.
    """

    pictures: int = 64
    picture_bytes: int = 32 << 20
    pixels: int = 64_000_000
    labels: int = 10_000
    prompts: int = 100_000
    texts: int = 1_000
    characters: int = 1_000

    @classmethod
    def from_environment(cls) -> Limits:
        """The defaults, and what the environment says otherwise.

        Raises:
            RequestError: a variable is not a whole number from 1.
        """
        chosen = {}
        for field in fields(cls):
            variable = _PREFIX + field.name.upper()
            text = os.environ.get(variable)
            if text is None:
                continue
            if not text.isdecimal() or int(text) < 1:
                raise RequestError(f"{variable} is {text!r}, expected a whole number from 1")
            chosen[field.name] = int(text)
        return cls(**chosen)

    def check_count(self, field: str, count: int) -> None:
        """Refuse more of something than its limit, by the limit's name."""
        most = getattr(self, field)
        if count > most:
            raise LimitError(f"the request has {count} {field}, at most {most} are taken{_hint(field)}")

    def check_characters(self, field: str, texts: Sequence[str]) -> None:
        """Refuse a text that is too long."""
        for i, text in enumerate(texts):
            if len(text) > self.characters:
                raise LimitError(
                    f"{field}[{i}] has {len(text)} characters, at most {self.characters} are taken"
                    f"{_hint('characters')}"
                )

    def check_bytes(self, name: str, size: int) -> None:
        """Refuse a picture file that is too large."""
        if size > self.picture_bytes:
            raise LimitError(
                f"{name} has some {size:,} bytes, at most {self.picture_bytes:,} are taken"
                f"{_hint('picture_bytes')}"
            )

    def check_pixels(self, name: str, content: bytes) -> None:
        """Refuse a picture that is too large to decode; one that cannot be opened is left to the decoder."""
        try:
            width, height = decoded_size(io.BytesIO(content), readable_formats())
        except Exception:  # the decoder says by name what is wrong
            return
        if width * height > self.pixels:
            raise LimitError(
                f"{name} is {width} x {height} pixels, at most {self.pixels:,} are taken{_hint('pixels')}"
            )


def _hint(field: str) -> str:
    return f" (the server's {_PREFIX}{field.upper()})"
