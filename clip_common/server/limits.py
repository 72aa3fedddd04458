"""What one HTTP request may ask for at most; `CLIP_HUB_MAX_...` in the environment sets each limit."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields

from ..errors import LimitError, RequestError
from ..preprocessing.bounded_reader import BoundedReader, TooManyPartsError
from ..preprocessing.decoded_size import decoded_size
from ..preprocessing.image import readable_formats
from ..text.prompts import Prompts

_PREFIX = "CLIP_HUB_MAX_"
_SCORE_BYTES = 48  # of a label's score and the names of both, in JSON
_NUMBER_BYTES = 24
_HEAT_BYTES = 12  # of a place of a heat map, which is rounded
_READS = 20_000  # pieces of an image's headers


@dataclass(frozen=True)
class Limits:
    """Limits of a request.

    Attributes:
        pictures: pictures in it.
        picture_bytes: bytes of one picture file.
        pixels: pixels of one picture, checked before it is decoded.
        labels: labels in it.
        templates: templates in it.
        prompts: labels times templates, which are so many texts to encode; what is left out counts as what
            it stands for.
        texts: texts to embed in it.
        characters: characters of one label, template or text, and of a template with a label in it.
        answer_bytes: bytes of its answer.
    """

    pictures: int = 64
    picture_bytes: int = 32 << 20
    pixels: int = 64_000_000
    labels: int = 10_000
    templates: int = 1_000
    prompts: int = 100_000
    texts: int = 1_000
    characters: int = 1_000
    answer_bytes: int = 64 << 20

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

    def check_characters(self, name: str, text: str) -> None:
        """Refuse a text that is too long."""
        if len(text) > self.characters:
            raise LimitError(
                f"{name} has {len(text)} characters, at most {self.characters} are taken{_hint('characters')}"
            )

    def check_prompts(self, prompts: Prompts) -> None:
        """Refuse too many prompts, or one that is too long with a label in it."""
        self.check_count("prompts", len(prompts.labels) * len(prompts.templates))
        label = max(prompts.labels, key=len)
        for template in prompts.templates:
            places = template.count("{}")
            characters = len(template) + places * (len(label) - len("{}"))
            if characters > self.characters:
                raise LimitError(
                    f"the template {template[:40]!r} with the label {label[:40]!r} in it has {characters} "
                    f"characters, at most {self.characters} are taken{_hint('characters')}"
                )

    def check_scores(self, images: int, top_k: int, labels: Sequence[str]) -> None:
        """Refuse what would be answered with too many labels."""
        longest = sorted((len(json.dumps(label)) for label in labels), reverse=True)
        self._check_answer(images * sum(length + _SCORE_BYTES for length in longest[:top_k]))

    def check_embeddings(self, count: int, embed_dim: int) -> None:
        """Refuse what would be answered with too many numbers."""
        self._check_answer(count * embed_dim * _NUMBER_BYTES)

    def check_heat_maps(self, count: int, side: int) -> None:
        """Refuse what would be answered with too many numbers, of maps of so many pixels a side."""
        self._check_answer(count * side * side * _HEAT_BYTES)

    def _check_answer(self, size: int) -> None:
        if size > self.answer_bytes:
            raise LimitError(
                f"the answer would have some {size:,} bytes, at most {self.answer_bytes:,} are sent: ask for "
                f"less at a time, or a smaller top_k{_hint('answer_bytes')}"
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
            width, height = decoded_size(BoundedReader(content, _READS), readable_formats())
        except TooManyPartsError as error:
            raise LimitError(f"{name} cannot be opened: {error}") from None
        except Exception:  # the decoder says by name what is wrong
            return
        if width * height > self.pixels:
            raise LimitError(
                f"{name} is {width} x {height} pixels, at most {self.pixels:,} are taken{_hint('pixels')}"
            )


def _hint(field: str) -> str:
    return f" (the server's {_PREFIX}{field.upper()})"
