"""Search results as thumbnails, and on contact sheets."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..embedding.items import content_of
from ..errors import ClipError
from ..preprocessing.image import for_display
from ..system.output import save_figure
from ..visualize import draw_contact_sheet
from .hits import Hit
from .stored_images import StoredImage

ROW = 5  # images per row of a contact sheet

_SIDE = 256  # side of a thumbnail, in pixels
_MOST_ROWS = 20


def write_contact_sheet(hits: Sequence[Hit], title: str, folder: Path) -> Path:
    """Write the results as `search.png`. An image that no longer exists leaves an empty cell."""
    path = folder / "search.png"
    save_figure(draw_contact_sheet([cell(hit) for hit in hits], title), path)
    return path


def cell(hit: Hit) -> tuple[Image.Image | None, str]:
    """The thumbnail of a hit (None if the image no longer exists) and its caption."""
    more = f" +{len(hit.duplicates)}" if hit.duplicates else ""
    return _thumbnail(hit.path, hit.root), f"{hit.score:.3f}  {Path(hit.path).name}{more}"


def write_rows(rows: Sequence[Sequence[tuple[StoredImage, str]]], title: str, path: Path) -> None:
    """Write one row per group, of at most 5 images with captions; at most 20 rows."""
    cells: list[tuple[Image.Image | None, str]] = []
    for row in rows[:_MOST_ROWS]:
        cells += [(_thumbnail(image.path, image.root), caption) for image, caption in row[:ROW]]
        cells += [(None, "")] * (-len(cells) % ROW)
    save_figure(draw_contact_sheet(cells, title), path)


def _thumbnail(path: str, root: str) -> Image.Image | None:
    """The thumbnail of an image, read from its file, shard or table; None if that fails."""
    try:
        return for_display(content_of(path, root), path, _SIDE)
    except (ClipError, OSError, KeyError, tarfile.TarError):
        return None
