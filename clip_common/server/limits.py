"""Limits of one HTTP request. Each can be set by an environment variable, `CLIP_HUB_MAX_<NAME>`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields

from PIL import Image

from ..errors import LimitError, RequestError
from ..preprocessing.bounded_reader import BoundedReader, TooManyPartsError
from ..preprocessing.decoded_size import decoded_size
from ..preprocessing.image import readable_formats
from ..text.prompts import Prompts

_PREFIX = "CLIP_HUB_MAX_"
_SCORE_BYTES = 48  # JSON of a score with the names of its fields, without the label
_NUMBER_BYTES = 24  # JSON of a number of an embedding
_HEAT_BYTES = 12  # JSON of a number of a heat map, which is rounded
_READS = 20_000  # reads while parsing the headers of an image


@dataclass(frozen=True)
class Limits:
    """Limits of a request.

    Attributes:
        pictures: number of images.
        picture_bytes: size of one image file.
        pixels: pixels of one image, checked before it is decoded.
        labels: number of labels.
        templates: number of templates.
        prompts: number of labels times number of templates, defaults included: the texts to encode.
        texts: number of texts to embed.
        characters: length of one label, template or text, and of a template with a label filled in.
        answer_bytes: estimated size of the response.
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
        """The defaults, overridden by environment variables.

        Raises:
            RequestError: a variable is not a positive integer.
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
        """Check a count against the limit named `field`; raises `LimitError`, as all checks here."""
        most = getattr(self, field)
        if count > most:
            raise LimitError(f"the request has {count} {field}, at most {most} are allowed{_hint(field)}")

    def check_characters(self, name: str, text: str) -> None:
        """Check the length of a text."""
        if len(text) > self.characters:
            raise LimitError(
                f"{name} has {len(text)} characters, at most {self.characters} are allowed"
                f"{_hint('characters')}"
            )

    def check_prompts(self, prompts: Prompts) -> None:
        """Check the number of prompts, and the length of the longest."""
        self.check_count("prompts", len(prompts.labels) * len(prompts.templates))
        label = max(prompts.labels, key=len)
        for template in prompts.templates:
            places = template.count("{}")
            characters = len(template) + places * (len(label) - len("{}"))
            if characters > self.characters:
                raise LimitError(
                    f"the template {template[:40]!r} with the label {label[:40]!r} in it has {characters} "
                    f"characters, at most {self.characters} are allowed{_hint('characters')}"
                )

    def check_scores(self, images: int, top_k: int, labels: Sequence[str]) -> None:
        """Check the size of a response with label scores."""
        longest = sorted((len(json.dumps(label)) for label in labels), reverse=True)
        self._check_answer(images * sum(length + _SCORE_BYTES for length in longest[:top_k]))

    def check_embeddings(self, count: int, embed_dim: int) -> None:
        """Check the size of a response with embeddings."""
        self._check_answer(count * embed_dim * _NUMBER_BYTES)

    def check_heat_maps(self, count: int, side: int) -> None:
        """Check the size of a response with heat maps of `side` x `side` numbers."""
        self._check_answer(count * side * side * _HEAT_BYTES)

    def _check_answer(self, size: int) -> None:
        if size > self.answer_bytes:
            raise LimitError(
                f"the answer would have about {size:,} bytes, at most {self.answer_bytes:,} are sent: ask "
                f"for less at a time, or a smaller top_k{_hint('answer_bytes')}"
            )

    def check_bytes(self, name: str, size: int) -> None:
        """Check the size of an image file."""
        if size > self.picture_bytes:
            raise LimitError(
                f"{name} has about {size:,} bytes, at most {self.picture_bytes:,} are allowed"
                f"{_hint('picture_bytes')}"
            )

    def check_pixels(self, name: str, content: bytes) -> None:
        """Check the pixels of an image, from its header; unreadable files are reported by the decoder."""
        try:
            width, height = decoded_size(BoundedReader(content, _READS), readable_formats())
        except TooManyPartsError as error:
            raise LimitError(f"{name} cannot be opened: {error}") from None
        except Image.DecompressionBombError:
            raise LimitError(
                f"{name} has far more pixels than the {self.pixels:,} that are allowed{_hint('pixels')}"
            ) from None
        except Exception:  # the decoder says by name what is wrong
            return
        if width * height > self.pixels:
            raise LimitError(
                f"{name} is {width} x {height} pixels, at most {self.pixels:,} are allowed{_hint('pixels')}"
            )


def _hint(field: str) -> str:
    return f" (the server's {_PREFIX}{field.upper()})"
