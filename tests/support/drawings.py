"""Drawings of three kinds with made-up names that no model knows, for tests of adaptation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("bim", "drel", "fosk")  # bars, discs and frames


def drawing(kind: str, number: int) -> Image.Image:
    """A drawing of a kind; the same number gives the same drawing."""
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
    """Write a folder of `count` drawings for each kind."""
    for kind in kinds:
        (root / kind).mkdir(parents=True)
        for number in range(count):
            drawing(kind, number).save(root / kind / f"{kind}{number}.png")
    return root
