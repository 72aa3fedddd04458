"""Draws the two diagrams of `examples/`: `python scripts/draw_examples.py [FOLDER]`.

They are square because CLIP's preprocessing crops the square in the middle. The same version of Pillow writes
the same bytes; other versions may draw letters slightly differently.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SIDE = 512  # pixels of the finished image
SCALE = 4  # drawn larger by this factor, then reduced, for smooth edges

INK = "#333333"
GREEN, PURPLE, BLUE, ORANGE, GREY = "#c8e6c9", "#d9cdee", "#bbdefb", "#ffe0b2", "#f3f3f3"

Point = tuple[float, float]


class Sheet:
    """A white square to draw on; coordinates are pixels of the finished image."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (SIDE * SCALE, SIDE * SCALE), "white")
        self._draw = ImageDraw.Draw(self._image)

    def text(self, centre: Point, label: str, size: float = 17) -> None:
        """A label centred at a point; line breaks give several lines."""
        x, y = centre
        font = ImageFont.load_default(size * SCALE)
        at = (x * SCALE, y * SCALE)
        self._draw.multiline_text(at, label, fill=INK, font=font, anchor="mm", align="center")

    def box(self, centre: Point, size: Point, label: str, fill: str, radius: float = 8) -> None:
        """A rounded box with its label."""
        (x, y), (width, height) = centre, size
        corners = [(x - width / 2) * SCALE, (y - height / 2) * SCALE]
        corners += [(x + width / 2) * SCALE, (y + height / 2) * SCALE]
        self._draw.rounded_rectangle(corners, radius * SCALE, fill, INK, 2 * SCALE)
        self.text(centre, label)

    def cell(self, centre: Point, side: float, label: str, fill: str) -> None:
        """A square of a grid, with its label."""
        x, y = centre
        low, high = -side / 2, side / 2
        corners = [(x + low) * SCALE, (y + low) * SCALE, (x + high) * SCALE, (y + high) * SCALE]
        self._draw.rectangle(corners, fill, INK, SCALE)
        self.text(centre, label, 13)

    def diamond(self, centre: Point, size: Point, label: str, fill: str) -> None:
        """A decision of a flow chart, with its label."""
        (x, y), (width, height) = centre, size
        corners = [(x, y - height / 2), (x + width / 2, y), (x, y + height / 2), (x - width / 2, y)]
        self._draw.polygon([(a * SCALE, b * SCALE) for a, b in corners], fill, INK, 2 * SCALE)
        self.text(centre, label)

    def arrow(self, *points: Point) -> None:
        """A line through the points, with a head at the last one."""
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(scaled, INK, 2 * SCALE, joint="curve")
        (x0, y0), (x1, y1) = scaled[-2:]
        angle = math.atan2(y1 - y0, x1 - x0)
        head = [
            (x1 - 11 * SCALE * math.cos(angle + turn), y1 - 11 * SCALE * math.sin(angle + turn))
            for turn in (-0.45, 0.45)
        ]
        self._draw.polygon([(x1, y1), *head], INK)

    def save(self, path: Path) -> None:
        """Reduce to the finished size and write a PNG in full colour.

        A palette would save little, and CLIP's preprocessing resizes palette images by dropping pixels, which
        breaks thin lines.
        """
        self._image.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(path, optimize=True)


def draw_clip() -> Sheet:
    """How CLIP works: two encoders, and the similarity of every image and every text."""
    sheet = Sheet()
    count, side = 4, 52
    left, top = 292, 202  # centre of the grid's first cell
    columns = [left + side * i for i in range(count)]
    rows = [top + side * i for i in range(count)]
    middle_x, middle_y = sum(columns) / count, sum(rows) / count

    sheet.box((92, 84), (116, 56), "texts", GREY)
    sheet.box((middle_x, 56), (176, 60), "text encoder", PURPLE)
    sheet.arrow((150, 84), (190, 84), (190, 56), (middle_x - 88, 56))
    sheet.box((92, 446), (116, 56), "pictures", GREY)
    sheet.box((92, middle_y), (140, 84), "image\nencoder", GREEN)
    sheet.arrow((92, 418), (92, middle_y + 42))

    for i, x in enumerate(columns):
        sheet.cell((x, 138), side, f"T{i + 1}", PURPLE)
    sheet.arrow((middle_x, 86), (middle_x, 112))
    for i, y in enumerate(rows):
        sheet.cell((228, y), side, f"I{i + 1}", GREEN)
    sheet.arrow((162, middle_y), (202, middle_y))
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            sheet.cell((x, y), side, f"I{i + 1}·T{j + 1}", BLUE if i == j else "white")

    sheet.box((middle_x, 460), (176, 56), "similarity", ORANGE)
    sheet.arrow((middle_x, rows[-1] + side / 2), (middle_x, 432))
    return sheet


def draw_flowchart() -> Sheet:
    """How a hub module finds its weights when it is called."""
    sheet = Sheet()
    sheet.box((170, 44), (130, 48), "start", GREEN, radius=24)
    sheet.arrow((170, 68), (170, 104))
    sheet.diamond((170, 164), (210, 120), "weights\nin cache?", ORANGE)
    sheet.text((292, 146), "no")
    sheet.arrow((275, 164), (328, 164))
    sheet.box((402, 164), (148, 60), "download", BLUE)
    sheet.text((192, 250), "yes")
    sheet.arrow((170, 224), (170, 292))
    sheet.arrow((402, 194), (402, 322), (250, 322))
    sheet.box((170, 322), (160, 60), "load model", BLUE)
    sheet.arrow((170, 352), (170, 414))
    sheet.box((170, 444), (160, 60), "compare", BLUE)
    sheet.arrow((250, 444), (337, 444))
    sheet.box((402, 444), (130, 48), "answer", GREEN, radius=24)
    return sheet


def main() -> None:
    """Write both images, into `examples/` or the folder given."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLES
    draw_clip().save(folder / "diagram.png")
    draw_flowchart().save(folder / "flowchart.png")


if __name__ == "__main__":
    main()
