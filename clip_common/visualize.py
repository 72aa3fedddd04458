"""An image a person can read: the photo, and beside it its labels with their scores as bars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from .system.names import printable
from .zero_shot.scoring import Answer

# For labels that are not Latin; matplotlib takes the first of these that is installed.
_FONTS = [
    "DejaVu Sans", "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Microsoft YaHei", "SimHei", "PingFang SC", "Arial Unicode MS",
]  # fmt: skip
_THUMBNAIL = 1024  # pixels
_LONGEST_LABEL = 40  # characters


def draw_answer(image: Image.Image, answer: Answer, title: str) -> Figure:
    """The photo on the left, the labels on the right, best on top."""
    photo = image.convert("RGBA")
    photo.thumbnail((_THUMBNAIL, _THUMBNAIL))
    figure = Figure(figsize=(10, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.imshow(photo)
    left.set_axis_off()
    left.set_title(printable(title), family=_installed_fonts(), parse_math=False)
    labels = [_shorten(str(item["label"])) for item in answer]
    scores = [float(item["score"]) for item in answer]
    bars = right.barh(range(len(answer)), scores, color="#4c72b0")
    right.set_yticks(range(len(answer)), labels, family=_installed_fonts(), parse_math=False)
    right.bar_label(bars, [f"{score:.1%}" for score in scores], padding=4)
    right.invert_yaxis()
    right.set_xlim(0, 1.15)
    right.spines[["top", "right", "bottom"]].set_visible(False)
    right.set_xticks([])
    return figure


def draw_similarities(cosines: np.ndarray, images: list[str], texts: list[str]) -> Figure:
    """A map of cosines [images, texts]: the darker, the better a text fits an image."""
    rows, columns = cosines.shape
    figure = Figure(figsize=(3 + 0.9 * columns, 2 + 0.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(cosines, cmap="Blues", aspect="auto")
    axes.set_title("Cosine of each image with each text")
    fonts = _installed_fonts()
    axes.set_xticks(
        range(columns), map(_shorten, texts), rotation=30, ha="right", family=fonts, parse_math=False
    )
    axes.set_yticks(range(rows), map(_shorten, images), family=fonts, parse_math=False)
    middle = (cosines.max() + cosines.min()) / 2
    for row, column in np.ndindex(rows, columns):
        value = cosines[row, column]
        colour = "white" if value > middle else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    return figure


def save_contact_sheet(cells: list[tuple[Image.Image | None, str]], title: str, path: Path) -> None:
    """Images with their captions in rows of five, as PNG; an empty place where there is no image."""
    columns = min(5, max(1, len(cells)))
    rows = -(-len(cells) // columns) or 1
    figure = Figure(figsize=(2.4 * columns, 2.5 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(printable(title), family=_installed_fonts(), parse_math=False)
    for place in figure.subplots(rows, columns, squeeze=False).flat:
        place.set_axis_off()
    for place, (image, caption) in zip(figure.axes, cells, strict=False):
        if image is not None:
            thumbnail = image.convert("RGBA")
            thumbnail.thumbnail((_THUMBNAIL // 4, _THUMBNAIL // 4))
            place.imshow(thumbnail)
        place.set_title(_shorten(caption), family=_installed_fonts(), fontsize=7, parse_math=False)
    figure.savefig(path, dpi=100)


def save_answer(image: Image.Image, answer: Answer, title: str, path: Path) -> None:
    """Draw an answer and save it as PNG."""
    draw_answer(image, answer, title).savefig(path, dpi=100)


def _installed_fonts() -> list[str]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return [font for font in _FONTS if font in installed] or ["sans-serif"]


def _shorten(label: str) -> str:
    shown = printable(label)
    return shown if len(shown) <= _LONGEST_LABEL else shown[: _LONGEST_LABEL - 1] + "…"
