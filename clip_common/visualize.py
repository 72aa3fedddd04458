"""Plots of results: an image beside its labels and scores, heat maps, similarity matrices, contact sheets."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal
from unicodedata import east_asian_width

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from .preprocessing.image import ImageInput, for_display
from .system.file_names import printable
from .system.log import logger
from .zero_shot.scoring import Answer, Nearest, ScoreKind

warnings.filterwarnings("ignore", message="Glyph ")  # one for each character; `text_style` says it once

# Fallback fonts for labels that are not Latin: matplotlib looks up each character in the installed ones. Of a
# font collection (.ttc) it registers only the first font, so Noto and Source Han may appear as any language.
_CJK_FONTS = [
    *(f"{family} {language}" for language in ("SC", "JP", "TC", "HK", "KR")
      for family in ("Noto Sans CJK", "Source Han Sans", "Noto Serif CJK", "Noto Sans")),
    "Source Han Sans CN", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "AR PL UMing CN",
    "Microsoft YaHei", "SimHei", "SimSun", "PingFang SC", "Hiragino Sans GB", "Heiti TC", "STHeiti",
    "Songti SC", "Arial Unicode MS", "Unifont",
]  # fmt: skip
_FIRST_CJK = "\u2e80"
_THUMBNAIL = 1024  # pixels, the longer side
_LONG = 64  # aspect ratio from which an image is stretched, since it would be drawn as a thin line
_FAINT = 0.5  # log odds; weaker maps are not scaled up to full colour
_MAP_PIXELS = 640  # longer side of a single heat map
_LONGEST_LABEL = 40  # columns; a Chinese character takes two


def draw_answer(
    image: Image.Image,
    answer: Answer,
    title: str,
    scores: ScoreKind = "softmax",
    nearest: Nearest | None = None,
) -> Figure:
    """Draw the image on the left and its labels as a bar chart on the right, best on top.

    Args:
        image: the image.
        answer: its labels and scores, from `Predictor.classify`.
        title: title of the image.
        scores: the kind of the scores.
        nearest: for an empty answer, the label that came closest to its threshold; drawn in grey.
    """
    figure = Figure(figsize=(10, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    photo = for_display(image, title, _THUMBNAIL)
    left.imshow(photo, aspect=_aspect(photo))
    left.set_axis_off()
    left.set_title(_shorten(title), **text_style(title))
    drawn = [nearest] if nearest else answer
    labels = [_shorten(str(item["label"])) for item in drawn]
    values = [float(item["score"]) for item in drawn]
    bars = right.barh(range(len(drawn)), values, color="#b0b0b0" if nearest else "#4c72b0")
    right.set_yticks(range(len(drawn)), labels, **text_style(*labels))
    right.bar_label(bars, [_shown(value, scores) for value in values], padding=4)
    right.invert_yaxis()
    if nearest:
        right.set_title(f"none of these; the nearest, of {_shown(nearest['threshold'], scores)} needed")
        right.axvline(nearest["threshold"], color="#c44e52", linestyle="--")
        right.set_ylim(2, -2)  # one thin bar
        values = [*values, nearest["threshold"]]
    right.set_xlim(*((0, 1.15) if scores == "softmax" else _around(values)))
    right.spines[["top", "right", "bottom"]].set_visible(False)
    right.set_xticks([])
    return figure


def draw_heat_maps(
    image: Image.Image, heats: dict[str, np.ndarray], title: str, squashed: bool = False
) -> Figure:
    """Draw the image and, beside it, one heat map per label over a grey copy of the image.

    Args:
        image: the image.
        heats: heat maps by caption, float32 [R, R], see `explain`. All share one colour scale.
        title: title of the image.
        squashed: the maps cover the whole image, not its central square.
    """
    figure = Figure(figsize=(4 * (1 + len(heats)), 4.3), layout="constrained")
    FigureCanvasAgg(figure)
    first, *others = figure.subplots(1, 1 + len(heats))
    photo = for_display(image, title, _THUMBNAIL)
    first.imshow(photo, aspect=_aspect(photo))
    first.set_title(_shorten(title), **text_style(title))
    first.set_axis_off()
    all_strengths = strengths(list(heats.values()))
    for axes, caption, strength in zip(others, heats, all_strengths, strict=True):
        _draw_strength(axes, photo, strength, squashed)
        axes.set_title(_shorten(caption), **text_style(caption))
    return figure


def strengths(heats: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Scale the heat maps of one image to colour strengths, 0 to 1, with one scale for all."""
    strongest = max(_FAINT, *(float(heat.max()) for heat in heats))
    return [np.clip(heat / strongest, 0, 1) for heat in heats]


def draw_heat_map(
    image: ImageInput | str | Path, strength: np.ndarray, name: str, squashed: bool = False
) -> Figure:
    """Draw one heat map over a grey copy of the image, without title or axes.

    Args:
        image: the image.
        strength: [R, R], from `strengths`.
        name: name of the image in error messages.
        squashed: see `draw_heat_maps`.

    Raises:
        ImageError: the image cannot be read.
    """
    photo = for_display(image, name, _MAP_PIXELS)
    longest = max(photo.size)
    sides = [max(side, longest / _LONG) / 100 * _MAP_PIXELS / longest for side in photo.size]
    figure = Figure(figsize=(sides[0], sides[1]))
    FigureCanvasAgg(figure)
    _draw_strength(figure.add_axes((0, 0, 1, 1)), photo, strength, squashed)
    return figure


def _draw_strength(axes: Axes, photo: Image.Image, strength: np.ndarray, squashed: bool) -> None:
    width, height = photo.size
    grey = np.asarray(Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("L"))
    seen = (width, height) if squashed else (min(photo.size), min(photo.size))
    left, top = (width - seen[0]) / 2 - 0.5, (height - seen[1]) / 2 - 0.5
    axes.imshow(grey, cmap="gray", vmin=-128, vmax=255, aspect=_aspect(photo))
    axes.imshow(
        strength, cmap="YlOrRd", vmin=0, vmax=1, alpha=0.8 * strength, aspect=_aspect(photo),
        extent=(left, left + seen[0], top + seen[1], top),
    )  # fmt: skip
    axes.add_patch(Rectangle((left, top), *seen, fill=False, edgecolor="#4c72b0", linestyle="--"))
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_axis_off()


def _aspect(photo: Image.Image) -> Literal["equal", "auto"]:
    return "equal" if max(photo.size) < _LONG * min(photo.size) else "auto"


def _shown(score: float, scores: ScoreKind) -> str:
    return f"{score:.1%}" if scores == "softmax" else f"{score:.3f}"


def _around(values: list[float]) -> tuple[float, float]:
    """Axis limits that start at 0 and make small cosines distinguishable."""
    largest = max(0.05, *map(abs, values))
    return (-1.3 * largest if min(values) < 0 else 0), 1.3 * largest


def draw_similarities(cosines: np.ndarray, images: list[str], texts: list[str]) -> Figure:
    """Draw a matrix of cosines [images, texts]; darker cells are better matches."""
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


def draw_contact_sheet(cells: list[tuple[Image.Image | None, str]], title: str) -> Figure:
    """Draw thumbnails with captions, five per row; None leaves an empty cell."""
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
    return figure


def text_style(*texts: str) -> dict[str, Any]:
    """Keyword arguments that make matplotlib draw texts literally, with fallback fonts for other scripts."""
    fonts = _installed_fonts()
    if len(fonts) == 1 and any(character >= _FIRST_CJK for text in texts for character in text):
        fonts = _fonts_installed_since()
        if len(fonts) == 1:
            _warn_of_fonts()
    return {"family": list(fonts), "parse_math": False}


@cache
def _installed_fonts() -> tuple[str, ...]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return "DejaVu Sans", *(font for font in _CJK_FONTS if font in installed)


@cache
def _fonts_installed_since() -> tuple[str, ...]:
    """The fonts, with those that are newer than matplotlib's list of them, which it makes once and keeps."""
    from matplotlib import font_manager

    listed = {font.fname for font in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - listed):
        with suppress(Exception):  # matplotlib cannot read it
            font_manager.fontManager.addfont(path)
    _installed_fonts.cache_clear()
    return _installed_fonts()


@cache
def _warn_of_fonts() -> None:
    logger.warning("no installed font has Chinese characters, they are drawn as boxes: install Noto Sans CJK")


def _shorten(label: str) -> str:
    label = printable(label)
    ends = list(accumulate(2 if east_asian_width(character) in "WF" else 1 for character in label))
    if not ends or ends[-1] <= _LONGEST_LABEL:
        return label
    return label[: bisect_left(ends, _LONGEST_LABEL)] + "…"
