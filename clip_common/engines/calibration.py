"""The images that come with the package, on which int8 is calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..config import Preprocessing
from ..preprocessing.image import Preprocess
from ..system.cache import content_sha256

SHEET = Path(__file__).resolve().parent.parent / "data" / "calibration.jpg"
"""Photographs and diagrams side by side, see `scripts/draw_calibration.py`."""

SIDE = 224  # pixels of one of them


def digest() -> str:
    """By which the images are known."""
    return content_sha256(SHEET)


def calibration_images(resolution: int, preprocessing: Preprocessing) -> np.ndarray:
    """The images as a model sees them, float32 [n, 3, R, R]."""
    prepare = Preprocess(resolution, preprocessing)
    with Image.open(SHEET) as sheet:
        corners = [(x, y) for y in range(0, sheet.height, SIDE) for x in range(0, sheet.width, SIDE)]
        return np.stack([prepare(sheet.crop((x, y, x + SIDE, y + SIDE))) for x, y in corners])
