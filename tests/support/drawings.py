"""Drawings of three kinds by names that mean nothing to a model, to adapt to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("bim", "drel", "fosk")  # bars, discs and frames


def drawing(kind: str, number: int) -> Image.Image:
    """The drawing of a kind with this number: the same number, the same drawing."""
    rng = np.random.default_rng([KINDS.index(kind), number])
    image = Image.new("RGB", (64, 64), tuple(int(v) for v in rng.integers(180, 256, 3)))
    draw, colour = ImageDraw.Draw(image), tuple(int(v) for v in rng.integers(0, 120, 3))
    x, y = (int(v) for v in rng.integers(8, 20, 2))
    if kind == "bim":
        draw.rectangle((x, y + 12, x + 36, y + 18), fill=colour)
    elif kind == "drel":
        draw.ellipse((x, y, x + 32, y + 32), fill=colour)
    else:
        draw.rectangle((x, y, x + 32, y + 32), outline=colour, width=4)
    return image


def write_drawings(root: Path, count: int, kinds: tuple[str, ...] = KINDS) -> Path:
    """A folder of each kind with so many drawings."""
    for kind in kinds:
        (root / kind).mkdir(parents=True)
        for number in range(count):
            drawing(kind, number).save(root / kind / f"{kind}{number}.png")
    return root
