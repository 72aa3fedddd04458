"""The images in the package for calibrating int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..config import Preprocessing
from ..preprocessing.image import Preprocess
from ..system.cache import content_sha256

SHEET = Path(__file__).resolve().parent.parent / "data" / "calibration.jpg"
"""Photographs and diagrams side by side, see `scripts/draw_calibration.py`."""

SIDE = 224  # side of one image, in pixels


def digest() -> str:
    """The hash of the images, part of the key of compiled towers."""
    return content_sha256(SHEET)


def calibration_images(resolution: int, preprocessing: Preprocessing) -> np.ndarray:
    """The calibration images, preprocessed for a model, float32 [n, 3, R, R]."""
    prepare = Preprocess(resolution, preprocessing)
    with Image.open(SHEET) as sheet:
        corners = [(x, y) for y in range(0, sheet.height, SIDE) for x in range(0, sheet.width, SIDE)]
        return np.stack([prepare(sheet.crop((x, y, x + SIDE, y + SIDE))) for x, y in corners])
