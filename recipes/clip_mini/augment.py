"""Stored pictures to what the model sees in training: moved, turned, tinted, over some background."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

SCALE = (0.62, 1.45)
MAX_TURN = math.radians(15)


def augment(picture: np.ndarray, resolution: int, flip: bool, rng: np.random.Generator) -> np.ndarray:
    """One showing of a picture.

    Args:
        picture: premultiplied RGBA, uint8 [S, S, 4].
        resolution: side of the result.
        flip: whether its mirror image means the same.

    Returns:
        RGB uint8 [resolution, resolution, 3].
    """
    moved = _move(picture, resolution, flip and rng.random() < 0.5, rng).astype(np.float32)
    colour, alpha = moved[..., :3], moved[..., 3:] / 255
    if rng.random() < 0.6:
        colour = _tint(colour, alpha, rng)
    rgb = colour + _background(resolution, rng) * (1 - alpha)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def _move(picture: np.ndarray, resolution: int, mirror: bool, rng: np.random.Generator) -> np.ndarray:
    """Scale, turn, shift and mirror; beyond the edge is transparent. Drawn twice as large, then halved."""
    side = picture.shape[0]
    scale = math.exp(rng.uniform(math.log(SCALE[0]), math.log(SCALE[1])))
    turn = rng.uniform(-MAX_TURN, MAX_TURN) if rng.random() < 0.5 else 0.0
    reach = side * 0.12 * max(scale, 1)
    shift_x, shift_y = rng.uniform(-reach, reach, 2)
    step = side / (2 * resolution) / scale
    a, b = step * math.cos(turn) * (-1 if mirror else 1), step * math.sin(turn)
    d, e = -step * math.sin(turn) * (-1 if mirror else 1), step * math.cos(turn)
    c = side / 2 + shift_x - (a + b) * resolution
    f = side / 2 + shift_y - (d + e) * resolution
    # "RGBX" is four plain channels to Pillow: no second multiplication by alpha.
    image = Image.frombytes("RGBX", (side, side), picture.tobytes())
    size = (2 * resolution, 2 * resolution)
    image = image.transform(size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
    return np.asarray(image.reduce(2))


def _tint(colour: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and a colour cast, on premultiplied colours."""
    grey = colour.mean(axis=-1, keepdims=True)
    colour = grey + (colour - grey) * rng.uniform(0.5, 1.3)
    contrast, lightness = rng.uniform(0.75, 1.15), rng.uniform(-18, 18)
    colour = colour * contrast + (127 * (1 - contrast) + lightness) * alpha
    return np.clip(colour * rng.uniform(0.9, 1.1, 3).astype(np.float32), 0, 255 * alpha)


def _background(resolution: int, rng: np.random.Generator) -> np.ndarray:
    """White mostly, else a flat colour, a gradient or noise; float32, broadcast to [R, R, 3]."""
    kind = rng.random()
    if kind < 0.6:
        return np.full(3, 255, np.float32)
    colour = rng.uniform(120, 256, 3).astype(np.float32)
    if kind < 0.82:
        return colour
    if kind < 0.93:
        other = rng.uniform(120, 256, 3).astype(np.float32)
        ramp = np.linspace(0, 1, resolution, dtype=np.float32)[:, None, None]  # R 1 1
        ramp = ramp if rng.random() < 0.5 else ramp.transpose(1, 0, 2)
        return colour + (other - colour) * ramp
    return colour + rng.normal(0, 20, (resolution, resolution, 1)).astype(np.float32)
