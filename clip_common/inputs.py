"""Validation of user input: images, paths, texts, counts and flags; errors name the argument."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import RequestError
from .preprocessing.image import ImageInput
from .system.listing import listed
from .system.secrets import hide_secrets
from .text.prompts import is_blank

NamedImage = tuple[str, ImageInput | str | Path]
"""An image, or its file, with the name that error messages use for it."""

FilePath = str | os.PathLike[str]

# Types of a single input, although some of them are iterable.
_ONE_IMAGE = (Image.Image, bytes, bytearray, memoryview, str, os.PathLike)
_ONE_TEXT = (str, bytes)


def named_images(
    images: Iterable[ImageInput] | ImageInput | None, paths: Iterable[FilePath] | FilePath | None
) -> list[NamedImage]:
    """List the images of a call, each with its name for error messages: "images[3]" or its path.

    Each argument is one image or path, or any iterable of them: a list, tuple, set, generator, array, or a
    column of a table.

    Raises:
        RequestError: an argument is empty, or of another type.
    """
    if isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype != object:
        images = [images]
    named: list[NamedImage] = []
    for i, image in enumerate([] if images is None else listed("images", images, RequestError, _ONE_IMAGE)):
        if isinstance(image, (str, os.PathLike)):
            raise RequestError(
                f"images[{i}] is a path ({hide_secrets(str(image))[:60]!r}): files go into paths"
            )
        named.append((f"images[{i}]", image))
    one_path = (*_ONE_TEXT, os.PathLike)
    for i, path in enumerate([] if paths is None else listed("paths", paths, RequestError, one_path)):
        if not isinstance(path, (str, os.PathLike)):
            raise RequestError(f"paths[{i}] is a {type(path).__name__}, expected a file's path")
        named.append((os.fspath(path), Path(path)))
    return named


def check_texts(texts: Iterable[str] | str) -> list[str]:
    """List the texts of a call and check that they are strings and not blank.

    Raises:
        RequestError: there are none, or one is blank or not a string.
    """
    checked = listed("texts", texts, RequestError, _ONE_TEXT)
    for i, text in enumerate(checked):
        if not isinstance(text, str):
            raise RequestError(f"texts[{i}] is a {type(text).__name__}, expected a string")
        if is_blank(text):
            raise RequestError(f"texts[{i}] is blank: remove it")
    return checked


def check_count(name: str, value: object) -> None:
    """Check that an argument is a positive integer.

    Raises:
        RequestError: naming the argument.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1:  # type: ignore[operator]
        raise RequestError(f"{name} is {value!r}, expected a whole number from 1")


def check_flag(name: str, value: object) -> bool:
    """Check that an argument is a boolean, 0 or 1, and return it as bool. (The string "False" is truthy.)

    Raises:
        RequestError: naming the argument.
    """
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, (int, np.integer)) and value in (0, 1)):
        return bool(value)
    raise RequestError(f"{name} is {value!r}, expected True or False")
