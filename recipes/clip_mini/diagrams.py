"""Draws random diagrams: the model should know "a diagram", and the packages have few."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .sources import Source

GENERATED = Source("generated", "1", "CC0-1.0", "this project", "generated", 0.35)
_SIDE = 384
_WORDS = "data model input output start stop yes no step text image train test load save user server".split()
Colour = tuple[int, ...]


class _Sheet:
    """A square to draw on, with random colours and line width."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.image = Image.new("RGB", (_SIDE, _SIDE), "white")
        self.draw = ImageDraw.Draw(self.image)
        self.ink: Colour = (int(rng.integers(90)),) * 3
        self.line = int(rng.integers(2, 6))
        fills = rng.integers(150, 256, (5, 3)) if rng.random() < 0.75 else np.full((5, 3), 255)
        self.fills = [tuple(map(int, fill)) for fill in fills]

    def fill(self) -> Colour:
        return self.fills[self.rng.integers(len(self.fills))]

    def node(self, x: float, y: float, width: float, height: float, shape: int) -> None:
        box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        if shape == 0:
            self.draw.rounded_rectangle(box, int(self.rng.integers(0, 14)), self.fill(), self.ink, self.line)
        elif shape == 1:
            self.draw.ellipse(box, self.fill(), self.ink, self.line)
        else:
            points = [(x, box[1]), (box[2], y), (x, box[3]), (box[0], y)]
            self.draw.polygon(points, self.fill(), self.ink, self.line)
        word = _WORDS[self.rng.integers(len(_WORDS))]
        self.draw.text(
            (x, y), word, self.ink, ImageFont.load_default(min(height / 2.6, width / 4)), anchor="mm"
        )

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.draw.line([start, end], self.ink, self.line)
        towards = np.subtract(end, start)
        along = towards / max(np.hypot(*towards), 1) * 12
        across = np.array([-along[1], along[0]]) * 0.6
        tip = np.array(end)
        self.draw.polygon([tuple(tip), tuple(tip - along + across), tuple(tip - along - across)], self.ink)


def _grid(sheet: _Sheet, flow: bool) -> None:
    """Boxes in a grid with arrows between neighbours; a flow chart is tall and has diamonds."""
    rng = sheet.rng
    columns, rows = (
        (int(rng.integers(1, 3)), int(rng.integers(3, 6))) if flow else rng.integers(2, 5, 2).tolist()
    )
    step_x, step_y = _SIDE / columns, _SIDE / rows
    width, height = step_x * rng.uniform(0.45, 0.7), step_y * rng.uniform(0.4, 0.6)
    width = min(width, 3 * height)
    centre = {
        (c, r): ((c + 0.5) * step_x, (r + 0.5) * step_y)
        for c in range(columns)
        for r in range(rows)
        if flow or rng.random() < 0.85
    }
    for (c, r), (x, y) in centre.items():
        if (c, r + 1) in centre and (flow or rng.random() < 0.6):
            sheet.arrow((x, y + height / 2), (x, y + step_y - height / 2))
        if (c + 1, r) in centre and rng.random() < 0.7:
            sheet.arrow((x + width / 2, y), (x + step_x - width / 2, y))
    for x, y in centre.values():
        shape = int(rng.choice([0, 1, 2], p=[0.6, 0.1, 0.3] if flow else [0.85, 0.13, 0.02]))
        sheet.node(x, y, width, height, shape)


def _tree(sheet: _Sheet) -> None:
    """A tree of three levels, like an organisation chart."""
    above = [(_SIDE / 2, 55.0)]
    size = (sheet.rng.uniform(60, 100), sheet.rng.uniform(34, 50))
    shape = int(sheet.rng.integers(2))
    sheet.node(*above[0], *size, shape)
    for level, count in enumerate(sheet.rng.integers([2, 3], [4, 6]).tolist(), 1):
        row = [((i + 0.5) * _SIDE / count, 55 + level * 130.0) for i in range(count)]
        for i, (x, y) in enumerate(row):
            parent = above[i * len(above) // count]
            sheet.arrow((parent[0], parent[1] + size[1] / 2), (x, y - size[1] / 2))
            sheet.node(x, y, min(size[0], _SIDE / count * 0.8), size[1], shape)
        above = row


def _network(sheet: _Sheet) -> None:
    """Nodes on a circle, some of them connected."""
    count = int(sheet.rng.integers(4, 8))
    angles = np.arange(count) * 2 * np.pi / count + sheet.rng.uniform(0, 6)
    points = [(192 + 130 * np.cos(a), 192 + 130 * np.sin(a)) for a in angles]
    for i in range(count):
        for j in range(i):
            if sheet.rng.random() < 0.5:
                sheet.draw.line([points[i], points[j]], sheet.ink, sheet.line)
    for x, y in points:
        sheet.node(x, y, 66, 66, int(sheet.rng.integers(2)))


def _bars(sheet: _Sheet) -> None:
    count = int(sheet.rng.integers(3, 9))
    width = 310 / count
    for i, height in enumerate(sheet.rng.uniform(30, 290, count)):
        colour = tuple(map(int, sheet.rng.integers(30, 230, 3)))
        sheet.draw.rectangle([45 + i * width, 345 - height, 45 + (i + 0.7) * width, 345], colour)
    sheet.draw.line([(38, 30), (38, 345), (360, 345)], sheet.ink, sheet.line)


def _lines(sheet: _Sheet) -> None:
    sheet.draw.line([(38, 30), (38, 345), (360, 345)], sheet.ink, sheet.line)
    x = np.linspace(45, 350, int(sheet.rng.integers(5, 12)))
    for _ in range(sheet.rng.integers(1, 4)):
        colour = tuple(map(int, sheet.rng.integers(0, 200, 3)))
        y = np.clip(190 + sheet.rng.normal(0, 45, len(x)).cumsum(), 35, 340)
        sheet.draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), colour, sheet.line + 2)


def _pie(sheet: _Sheet) -> None:
    cuts = np.sort(sheet.rng.uniform(0, 360, sheet.rng.integers(3, 7)))
    for start, end in zip(cuts, [*cuts[1:], cuts[0] + 360], strict=True):
        colour = tuple(map(int, sheet.rng.integers(40, 240, 3)))
        sheet.draw.pieslice([45, 45, 340, 340], start, end, colour, "white", 3)


_KINDS: tuple[tuple[str, Callable[[_Sheet], None]], ...] = (
    ("diagram", lambda sheet: _grid(sheet, flow=False)),
    ("block diagram", lambda sheet: _grid(sheet, flow=False)),
    ("flow chart", lambda sheet: _grid(sheet, flow=True)),
    ("flow diagram", lambda sheet: _grid(sheet, flow=True)),
    ("tree diagram", _tree),
    ("network diagram", _network),
    ("bar chart", _bars),
    ("line chart", _lines),
    ("pie chart", _pie),
)


def draw_diagrams(count: int = 450, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield names and PNG files of diagrams, the same number of each kind."""
    for number in range(count):
        name, draw = _KINDS[number % len(_KINDS)]
        sheet = _Sheet(np.random.default_rng([seed, number]))
        draw(sheet)
        file = io.BytesIO()
        sheet.image.save(file, "PNG", compress_level=1)
        yield name, file.getvalue()
