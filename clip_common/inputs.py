"""What users give, images and texts, each with the name that an error calls it by; and its checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .errors import RequestError
from .preprocessing.image import ImageInput

NamedImage = tuple[str, ImageInput | str | Path]
"""What an error calls an image, and the image: itself, or its file."""


def named_images(images: Sequence[ImageInput] | None, paths: Sequence[str | Path] | None) -> list[NamedImage]:
    """Images, each with the name that an error calls it by.

    Raises:
        RequestError: an argument is empty, or is one image where a list is expected.
    """
    for name, given in (("images", images), ("paths", paths)):
        if given is None:
            continue
        if isinstance(given, (str, bytes, Path, np.ndarray)) or not hasattr(given, "__len__"):
            raise RequestError(f"{name} is a single {type(given).__name__}, expected a list")
        if len(given) == 0:
            raise RequestError(f"{name} is empty: leave it out, or give at least one image")
    for i, image in enumerate(images or []):
        if isinstance(image, (str, Path)):
            raise RequestError(f"images[{i}] is a path ({str(image)[:60]!r}): files go into paths")
    named: list[NamedImage] = [(f"images[{i}]", image) for i, image in enumerate(images or [])]
    for i, path in enumerate(paths or []):
        if not isinstance(path, (str, Path)):
            raise RequestError(f"paths[{i}] is a {type(path).__name__}, expected a file's path")
        named.append((str(path), path))
    return named


def check_texts(texts: Sequence[str]) -> list[str]:
    """Texts as given, if they are a list of strings with something in it."""
    if isinstance(texts, str):
        raise RequestError(f"texts is a single string ({texts[:60]!r}), expected a list of strings")
    if len(texts) == 0:
        raise RequestError("texts is empty: leave it out, or give at least one text")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise RequestError(f"texts[{i}] is a {type(text).__name__}, expected a string")
    return list(texts)


def check_count(name: str, value: object) -> None:
    """Check that an argument is a whole number from 1.

    Raises:
        RequestError: naming the argument.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1:  # type: ignore[operator]
        raise RequestError(f"{name} is {value!r}, expected a whole number from 1")
