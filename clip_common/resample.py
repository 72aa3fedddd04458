"""torchvision's "shorter side to R, centre crop to R", for PIL pictures of any shape in bounded memory.

Pillow does the work. A very long picture would first grow to R pixels times its aspect, gigabytes for a
line of 30,000 x 1; there only the columns that the crop keeps are computed, by Pillow's own arithmetic
(`src/libImaging/Resample.c`: 22-bit fixed-point weights), so that the pixels are the same.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_LONG = 64  # aspect from which the long side is resampled here
_BITS = 22
_CHUNK = 1 << 20


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """The centre square of a picture, in its own mode, of `size` pixels a side."""
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
    return image.resize(after, Image.Resampling.BICUBIC).crop(box)


def _resize_long(image: Image.Image, size: int, long_after: int, first: int) -> Image.Image:
    if image.mode in ("1", "P"):
        return _nearest(image.convert("RGB"), size, long_after, first)
    if image.mode in ("RGBA", "LA"):  # as Pillow: colours premultiplied by alpha
        premultiplied = image.convert("RGBa" if image.mode == "RGBA" else "La")
        return _resize_long(premultiplied, size, long_after, first).convert(image.mode)
    bands = [_resize_band(band, size, long_after, first) for band in image.split()]
    return bands[0] if len(bands) == 1 else Image.merge(image.mode, bands)


def _resize_band(band: Image.Image, size: int, long_after: int, first: int) -> Image.Image:
    """Pillow resizes rows before columns, so the order is the same here, whichever side is long."""
    if band.width >= band.height:
        strip = _resample_rows(np.asarray(band), long_after, first, size)
        return Image.fromarray(strip).resize((size, size), Image.Resampling.BICUBIC)
    narrow = band.resize((size, band.height), Image.Resampling.BICUBIC)
    return Image.fromarray(_resample_rows(np.asarray(narrow).T, long_after, first, size).T.copy())


def _resample_rows(pixels: np.ndarray, after: int, first: int, count: int) -> np.ndarray:
    """Bicubic along the last axis: `count` of `after` columns from `first`; uint8 [H, W] to [H, count]."""
    before = pixels.shape[1]
    scale = before / after
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    out = np.empty((pixels.shape[0], count), np.uint8)
    for i in range(count):
        center = (first + i + 0.5) * scale
        start = max(int(center - support + 0.5), 0)
        stop = min(int(center + support + 0.5), before)
        weights = _bicubic((np.arange(start, stop) - center + 0.5) * (1.0 / stretch))
        weights /= weights.cumsum()[-1]  # summed in order, as Pillow does
        fixed = np.trunc(weights * (1 << _BITS) + np.copysign(0.5, weights)).astype(np.int64)
        total = pixels[:, start:stop].astype(np.int64) @ fixed + (1 << (_BITS - 1))
        out[:, i] = np.clip(total >> _BITS, 0, 255)
    return out


def _bicubic(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel with a = -0.5, in Pillow's order of operations."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _nearest(image: Image.Image, size: int, long_after: int, first: int) -> Image.Image:
    """Pillow resizes palettes and bitmaps by the nearest pixel."""
    pixels = np.asarray(image)
    wide = image.width >= image.height
    along = _nearest_indices(max(image.size), long_after, first, size)
    across = _nearest_indices(min(image.size), size, 0, size)
    rows, columns = (across, along) if wide else (along, across)
    return Image.fromarray(pixels[rows][:, columns])


def _nearest_indices(before: int, after: int, first: int, count: int) -> np.ndarray:
    """Source indices of `count` of `after` pixels from `first`, by Pillow's running sum of steps."""
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
