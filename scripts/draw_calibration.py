"""Makes `clip_common/data/calibration.jpg`, for int8 calibration: `python -m scripts.draw_calibration`.

The image is a sheet of 32 squares from `examples/`: the photographs that need no credit, the two diagrams,
and crops of them at other scales.
"""

from __future__ import annotations

import random
from itertools import cycle, islice
from pathlib import Path

from PIL import Image, ImageOps

from clip_common.engines.calibration import SHEET, SIDE

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
COLUMNS, ROWS = 8, 4
CREDITED = {"photo_bee.jpg", "photo_mountain.jpg"}  # CC-BY; the sheet travels without examples/README.md


def main() -> None:
    """Write the sheet."""
    photographs = sorted(path for path in EXAMPLES.glob("photo_*.jpg") if path.name not in CREDITED)
    paths = [*photographs, EXAMPLES / "diagram.png", EXAMPLES / "flowchart.png"]
    images = [Image.open(path).convert("RGB") for path in paths]
    rng = random.Random(0)
    sheet = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE))
    for number, image in enumerate(islice(cycle(images), COLUMNS * ROWS)):
        part = image if number < len(images) else crop(image, rng)
        square = ImageOps.fit(part, (SIDE, SIDE), Image.Resampling.BICUBIC)
        sheet.paste(square, (number % COLUMNS * SIDE, number // COLUMNS * SIDE))
    sheet.save(SHEET, "JPEG", quality=85)


def crop(image: Image.Image, rng: random.Random) -> Image.Image:
    """A random square crop of an image, 0.35 to 0.9 of its shorter side."""
    side = int(min(image.size) * rng.uniform(0.35, 0.9))
    left, upper = rng.randint(0, image.width - side), rng.randint(0, image.height - side)
    return image.crop((left, upper, left + side, upper + side))


if __name__ == "__main__":
    main()
