"""Resizes PIL images like torchvision: "shorter side to R, centre crop to R", or "both sides to R".

Pillow does the work, or `compiled_resize.py` if numba is installed and there are many images. A very long
image would first grow to R pixels times its aspect ratio: gigabytes for 30,000 x 1. For such images only the
pixels that the crop keeps are computed, with Pillow's own arithmetic (`src/libImaging/Resample.c`: 22-bit
fixed-point weights), so the result is identical.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import numpy as np
from PIL import Image

from ..system.cache import cache_dir
from ..system.log import logger
from ..system.output import reason_of

_LONG = 64  # aspect ratio above which the long side is resampled here
_BITS = 22
_CHUNK = 1 << 20
# Weighted sums of 4 or more pixels. Pillow computes this many in the time to load the compiled code, 0.6 s.
_WORTH = 100_000_000

Size = tuple[int, int]
Box = tuple[int, int, int, int]


class Compiled:
    """The compiled resizing, loaded once Pillow has worked for as long as loading takes.

    A command with one photograph never loads it, and one with many loses little time. Servers load it when
    they start.
    """

    def __init__(self, worth: int = _WORTH) -> None:
        self._left: int | None = worth  # work for Pillow before loading; None once loading was tried
        self._lock = Lock()
        self._resize: Callable[[Image.Image, Size, Box], Image.Image | None] | None = None

    def __call__(self, image: Image.Image, after: Size, box: Box) -> Image.Image | None:
        """`image.resize(after, BICUBIC).crop(box)`; None if Pillow should do it instead."""
        if self._resize is None and self._is_due(image.size, after):
            self.load()
        return self._resize(image, after, box) if self._resize else None

    def _is_due(self, before: Size, after: Size) -> bool:
        """True only for the first call after Pillow has done `worth`; earlier calls add to its work."""
        with self._lock:
            if self._left is None:
                return False
            if self._left <= 0:
                self._left = None
                return True
            self._left -= before[1] * max(before[0], after[0]) + after[0] * max(before[1], after[1])
            return False

    def load(self) -> None:
        """Load the compiled resizing now. If numba is missing or does not work, Pillow is used."""
        self._left = None
        try:
            from . import compiled_resize

            if not compiled_resize.AVAILABLE:
                return
            equal = compiled_resize.equals_pillow()
        except Exception as error:  # a numba that is incompatible with numpy or the CPU can raise anything
            where = f"{cache_dir() / 'numba'}: " if isinstance(error, OSError) else ""
            logger.warning(
                "numba cannot be used (%s%s); Pillow resizes, which takes longer", where, reason_of(error)
            )
            return
        if equal:
            self._resize = compiled_resize.resize_and_crop
        else:
            logger.warning("numba is not used: its pixels differ from Pillow's")


compiled = Compiled()


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` and crop the centre to `size` x `size` pixels; the mode stays."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    long_after = int(size * long / short)
    first = round((long_after - size) / 2)
    if long > _LONG * short:
        return _resize_long(image, size, long_after, first)
    if width <= height:
        box, after = (0, first, size, first + size), (size, long_after)
    else:
        box, after = (first, 0, first + size, size), (long_after, size)
    return compiled(image, after, box) or image.resize(after, Image.Resampling.BICUBIC).crop(box)


def squash(image: Image.Image, size: int) -> Image.Image:
    """Resize both sides to `size` pixels, ignoring the aspect ratio; the mode stays."""
    after = (size, size)
    return compiled(image, after, (0, 0, *after)) or image.resize(after, Image.Resampling.BICUBIC)


RESIZE = {"crop": resize_and_crop, "squash": squash}  # by the name in a `Preprocessing`


def _resize_long(image: Image.Image, size: int, long_after: int, first: int) -> Image.Image:
    if image.mode in ("1", "P"):
        return _nearest(image.convert("RGB"), size, long_after, first)
    if image.mode in ("RGBA", "LA"):  # like Pillow: colours premultiplied by alpha
        premultiplied = image.convert("RGBa" if image.mode == "RGBA" else "La")
        return _resize_long(premultiplied, size, long_after, first).convert(image.mode)
    bands = [_resize_band(band, size, long_after, first) for band in image.split()]
    return bands[0] if len(bands) == 1 else Image.merge(image.mode, bands)


def _resize_band(band: Image.Image, size: int, long_after: int, first: int) -> Image.Image:
    """Resize and crop one band of a long image. As in Pillow, rows are resized before columns."""
    axis = _Axis(max(band.size), long_after)
    if band.width >= band.height:
        strip = axis.resample(np.asarray(band), 0, first, size)
        return Image.fromarray(strip).resize((size, size), Image.Resampling.BICUBIC)
    top, bottom = axis.support(first)[0], axis.support(first + size - 1)[1]
    narrow = band.crop((0, top, band.width, bottom)).resize((size, bottom - top), Image.Resampling.BICUBIC)
    return Image.fromarray(axis.resample(np.asarray(narrow).T, top, first, size).T.copy())


@dataclass(frozen=True)
class _Axis:
    """Bicubic resampling along one axis, from `before` pixels to `after`."""

    before: int
    after: int

    def support(self, index: int) -> tuple[int, int]:
        """The range (start, stop) of source pixels that one pixel of the result depends on."""
        center, reach = self._center(index), 2.0 * self._stretch
        return max(int(center - reach + 0.5), 0), min(int(center + reach + 0.5), self.before)

    def resample(self, pixels: np.ndarray, offset: int, first: int, count: int) -> np.ndarray:
        """Compute `count` pixels of the result, from pixel `first`: [H, W] to [H, count].

        `pixels` starts at source pixel `offset`.
        """
        out = np.empty((pixels.shape[0], count), pixels.dtype)
        for i in range(count):
            start, stop = self.support(first + i)
            distances = (np.arange(start, stop) - self._center(first + i) + 0.5) * (1.0 / self._stretch)
            weights = _bicubic(distances)
            weights /= weights.cumsum()[-1]  # summed in order, as Pillow does
            out[:, i] = _weighted(pixels[:, start - offset : stop - offset], weights)
        return out

    def _center(self, index: int) -> float:
        return (index + 0.5) * (self.before / self.after)

    @property
    def _stretch(self) -> float:
        return max(self.before / self.after, 1.0)


def _weighted(pixels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sums of rows, [H, W] to [H], with Pillow's arithmetic for each pixel type."""
    if pixels.dtype == np.uint8:
        fixed = np.trunc(weights * (1 << _BITS) + np.copysign(0.5, weights)).astype(np.int64)
        return np.clip((pixels.astype(np.int64) @ fixed + (1 << (_BITS - 1))) >> _BITS, 0, 255)
    total = (pixels * weights).cumsum(axis=1)[:, -1]
    if pixels.dtype == np.int32:
        return np.copysign(np.floor(np.abs(total) + 0.5), total)
    return total


def _bicubic(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel with a = -0.5, in Pillow's order of operations."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _nearest(image: Image.Image, size: int, long_after: int, first: int) -> Image.Image:
    """Resize and crop by the nearest pixel, as Pillow does for palettes and bitmaps."""
    pixels = np.asarray(image)
    wide = image.width >= image.height
    along = _nearest_indices(max(image.size), long_after, first, size)
    across = _nearest_indices(min(image.size), size, 0, size)
    rows, columns = (across, along) if wide else (along, across)
    return Image.fromarray(pixels[rows][:, columns])


def _nearest_indices(before: int, after: int, first: int, count: int) -> np.ndarray:
    """Source indices of `count` result pixels from `first`, computed by Pillow's running sum of steps."""
    step = before / after
    position = step * 0.5
    done = 0
    while done < first:  # the sum's rounding errors are part of the result
        chunk = min(_CHUNK, first - done)
        steps = np.full(chunk + 1, step)
        steps[0] = position
        position = float(np.add.accumulate(steps)[-1])
        done += chunk
    steps = np.full(count, step)
    steps[0] = position
    return np.minimum(np.add.accumulate(steps).astype(np.int64), before - 1)
