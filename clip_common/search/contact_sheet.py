"""Images that were found: as thumbnails, and on one sheet."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..embedding.sources import content_of
from ..errors import ClipError
from ..preprocessing.image import for_display
from ..visualize import save_contact_sheet
from .hits import Hit
from .stored_images import StoredImage

ROW = 5  # images, as on every contact sheet

_SIDE = 256  # of a thumbnail, pixels
_MOST_ROWS = 20


def write_contact_sheet(hits: Sequence[Hit], title: str, folder: Path) -> Path:
    """The images found, on one sheet, `search.png`; one that is not there any more is an empty place."""
    path = folder / "search.png"
    save_contact_sheet([cell(hit) for hit in hits], title, path)
    return path


def cell(hit: Hit) -> tuple[Image.Image | None, str]:
    """The thumbnail of a hit, None where it is not there any more, and what stands below it."""
    more = f" +{len(hit.duplicates)}" if hit.duplicates else ""
    return _thumbnail(hit.path, hit.root), f"{hit.score:.3f}  {Path(hit.path).name}{more}"


def write_rows(rows: Sequence[Sequence[tuple[StoredImage, str]]], title: str, path: Path) -> None:
    """A row of images for each group, with what stands below each; the first rows, and the first of each."""
    cells: list[tuple[Image.Image | None, str]] = []
    for row in rows[:_MOST_ROWS]:
        cells += [(_thumbnail(image.path, image.root), caption) for image, caption in row[:ROW]]
        cells += [(None, "")] * (-len(cells) % ROW)
    save_contact_sheet(cells, title, path)


def _thumbnail(path: str, root: str) -> Image.Image | None:
    """From its file, shard or table."""
    try:
        return for_display(content_of(path, root), path, _SIDE)
    except (ClipError, OSError, KeyError, tarfile.TarError):
        return None
