"""Convert pixels of more than 8 bits, and floats, to 8 bits, by the rules stated in `image.py`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

_BITS = (8, 10, 12, 14, 16, 24, 31, 32)
_SIGNED_BITS = (7, 9, 11, 13, 15, 23, 31)  # without the sign
_HEADROOM = 1.2  # for floats, which overshoot when they are resized
_SIGNED_FROM = 0.25  # relative to the largest value; smaller negative values are undershoots
_STRIP = 1 << 20  # number of values that are scaled at once


@dataclass(frozen=True)
class Scale:
    """A linear mapping of values to 0..255: `black` becomes 0, `white` becomes 255."""

    black: float
    white: float

    @property
    def is_8_bit(self) -> bool:
        """Whether the mapping is the identity, apart from clipping."""
        return (self.black, self.white) == (0, 255)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Map values of any type to uint8."""
        wide = np.nan_to_num(values.astype(np.float64), nan=self.black, posinf=self.white, neginf=self.black)
        wide -= self.black
        wide *= 255 / (self.white - self.black)
        return np.clip(np.rint(wide), 0, 255).astype(np.uint8)


def scale_of(lowest: float, highest: float, floats: bool) -> Scale:
    """The scale of an image, from its finite minimum and maximum."""
    signed = lowest < 0 and -lowest >= _SIGNED_FROM * highest
    below = -lowest if floats else -lowest - 1  # signed integers reach one further below zero
    reach = max(highest, below) if signed else highest
    tops = [float(2**bits - 1) for bits in (_SIGNED_BITS if signed else _BITS)]
    if floats:
        tops = [1.0, *tops]
        reach /= _HEADROOM
    white = next((top for top in tops if reach <= top), reach)
    return Scale(-white if signed else 0, white)


def narrow_array(values: np.ndarray) -> np.ndarray:
    """Convert an array of integers, floats or booleans to uint8, same shape."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values * np.uint8(255)
    scale = scale_of(*_extremes([values]), floats=values.dtype.kind == "f")
    narrow = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP * len(values) // max(values.size, 1))
    for top in range(0, len(values), rows):
        narrow[top : top + rows] = scale(values[top : top + rows])
    return narrow


def narrow_image(image: Image.Image, with_alpha: bool = False) -> Image.Image:
    """Convert a greyscale image of more than 8 bits to mode L; return any other image unchanged.

    Args:
        with_alpha: convert to mode LA if the file declares one value as transparent, as 16-bit PNG can.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    scale = scale_of(*_extremes(strip for _, strip in _strips(image)), floats=image.mode == "F")
    transparent = image.info.get("transparency") if with_alpha else None
    keyed = isinstance(transparent, int)
    if scale.is_8_bit and image.mode in ("I", "F") and not keyed and _finite(image):
        return image
    narrow = Image.new("LA" if keyed else "L", image.size)
    for top, values in _strips(image):
        strip = Image.fromarray(scale(values))
        if keyed:
            strip = Image.merge("LA", (strip, Image.fromarray((values != transparent) * np.uint8(255))))
        narrow.paste(strip, (0, top))
    narrow.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return narrow


def _strips(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """The image in strips of rows, each with its first row; one array of it all would double the memory."""
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))


def _extremes(parts: Iterable[np.ndarray]) -> tuple[float, float]:
    """The minimum and the maximum of all finite values."""
    lowest, highest = np.inf, -np.inf
    for part in parts:
        finite = part[np.isfinite(part)] if part.dtype.kind == "f" else part
        if finite.size:
            lowest, highest = min(lowest, float(finite.min())), max(highest, float(finite.max()))
    return (lowest, highest) if lowest <= highest else (0.0, 0.0)


def _finite(image: Image.Image) -> bool:
    return image.mode != "F" or all(np.isfinite(strip).all() for _, strip in _strips(image))
