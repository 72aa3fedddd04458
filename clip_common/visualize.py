"""An image a person can read: the photo, and beside it its labels with their scores as bars."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from .preprocessing.image import for_display
from .system.file_names import printable
from .system.log import logger
from .zero_shot.scoring import Answer

warnings.filterwarnings("ignore", message="Glyph ")  # one for each character; `text_style` says it once

# For labels that are not Latin; matplotlib looks for each character in those that are installed. Of a
# collection (.ttc) it knows the first font alone, so of Noto's and Source Han's that may be any language's.
_CJK_FONTS = [
    *(f"{family} {language}" for language in ("SC", "JP", "TC", "HK", "KR")
      for family in ("Noto Sans CJK", "Source Han Sans", "Noto Serif CJK", "Noto Sans")),
    "Source Han Sans CN", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "AR PL UMing CN",
    "Microsoft YaHei", "SimHei", "SimSun", "PingFang SC", "Hiragino Sans GB", "Heiti TC", "STHeiti",
    "Songti SC", "Arial Unicode MS", "Unifont",
]  # fmt: skip
_FIRST_CJK = "\u2e80"
_THUMBNAIL = 1024  # pixels
_LONG = 64  # aspect from which an image would be a line that nobody sees
_LONGEST_LABEL = 40  # characters


def draw_answer(image: Image.Image, answer: Answer, title: str) -> Figure:
    """The photo on the left, the labels on the right, best on top."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    photo = for_display(image, title, _THUMBNAIL)
    left.imshow(photo, aspect="equal" if max(photo.size) < _LONG * min(photo.size) else "auto")
    left.set_axis_off()
    left.set_title(_shorten(title), **text_style(title))
    labels = [_shorten(str(item["label"])) for item in answer]
    scores = [float(item["score"]) for item in answer]
    bars = right.barh(range(len(answer)), scores, color="#4c72b0")
    right.set_yticks(range(len(answer)), labels, **text_style(*labels))
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
    style = text_style(*texts, *images)
    axes.set_xticks(range(columns), map(_shorten, texts), rotation=30, ha="right", **style)
    axes.set_yticks(range(rows), map(_shorten, images), **style)
    middle = (cosines.max() + cosines.min()) / 2
    for row, column in np.ndindex(rows, columns):
        value = cosines[row, column]
        colour = "white" if value > middle else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    return figure


def save_contact_sheet(cells: list[tuple[Image.Image | None, str]], title: str, path: Path) -> None:
    """Thumbnails with their captions in rows of five, as PNG; an empty place where there is no image."""
    columns = min(5, max(1, len(cells)))
    rows = -(-len(cells) // columns) or 1
    figure = Figure(figsize=(2.4 * columns, 2.5 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(printable(title), **text_style(title))
    for place in figure.subplots(rows, columns, squeeze=False).flat:
        place.set_axis_off()
    for place, (image, caption) in zip(figure.axes, cells, strict=False):
        if image is not None:
            place.imshow(image)
        place.set_title(_shorten(caption), fontsize=7, **text_style(caption))
    figure.savefig(path, dpi=100)


def save_answer(image: Image.Image, answer: Answer, title: str, path: Path) -> None:
    """Draw an answer and save it as PNG."""
    draw_answer(image, answer, title).savefig(path, dpi=100)


def text_style(*texts: str) -> dict[str, Any]:
    """How matplotlib is to draw texts as they stand, with every installed font that may have them."""
    fonts = _installed_fonts()
    if len(fonts) == 1 and any(character >= _FIRST_CJK for text in texts for character in text):
        _warn_of_fonts()
    return {"family": list(fonts), "parse_math": False}


@cache
def _installed_fonts() -> tuple[str, ...]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return "DejaVu Sans", *(font for font in _CJK_FONTS if font in installed)


@cache
def _warn_of_fonts() -> None:
    logger.warning("no installed font has Chinese characters, they are drawn as boxes: install Noto Sans CJK")


def _shorten(label: str) -> str:
    label = printable(label)
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"
