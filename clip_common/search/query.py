"""What fits words, an image, or both: queries to vectors, hits to a table, JSON, or a contact sheet."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from ..embedding.sources import content_of
from ..errors import ClipError, RequestError
from ..predictor import Predictor
from ..preprocessing.image import for_display
from ..visualize import save_contact_sheet
from ..zero_shot.scoring import l2_normalize
from .hits import Hit

_SIDE = 256  # of a thumbnail, pixels


def query_vector(
    predictor: Predictor, text: str | None, image: str | None, text_weight: float = 0.5, use_gpu: bool = False
) -> np.ndarray:
    """The vector [d] of a query, of unit length; of both, their weighted mean.

    Args:
        predictor: the model that made the index.
        text: words.
        image: an image file.
        text_weight: how much the words count beside the image, 0 to 1.
        use_gpu: run on the GPU.

    Raises:
        ClipError: neither is given, or one cannot be used.
    """
    if text is None and image is None:
        raise RequestError("nothing to search for: give words, or --image")
    if not 0 <= text_weight <= 1:
        raise RequestError(f"--text_weight is {text_weight}, expected 0 to 1")
    texts = None if text is None else [text]
    vectors = predictor.embed(paths=[image] if image else None, texts=texts, use_gpu=use_gpu)
    return combined(vectors["texts"], vectors["images"], text_weight)


def combined(texts: np.ndarray | None, images: np.ndarray | None, text_weight: float = 0.5) -> np.ndarray:
    """One vector [d] of unit length of a text's and an image's, [1, d] each; one of them may be missing."""
    if texts is None or images is None:
        return (texts if images is None else images)[0]  # type: ignore[index]
    return l2_normalize(text_weight * texts[0] + (1 - text_weight) * images[0])


def as_json(hits: Sequence[Hit]) -> str:
    """One JSON document; it is ASCII, which every console can print."""
    return json.dumps({"results": [asdict(hit) for hit in hits]})


def as_table(hits: Sequence[Hit]) -> str:
    """A line for each hit."""
    lines = [
        f"{hit.score:7.4f}  {hit.width:>5} x {hit.height:<5}  {hit.path}  {hit.caption}".rstrip()
        for hit in hits
    ]
    return "\n".join(lines) or "nothing was found"


def write_contact_sheet(hits: Sequence[Hit], title: str, folder: Path) -> Path:
    """The images found, on one sheet, `search.png`; one that is not there any more is an empty place."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "search.png"
    save_contact_sheet([cell(hit) for hit in hits], title, path)
    return path


def cell(hit: Hit) -> tuple[Image.Image | None, str]:
    """The thumbnail of a hit, None where it is not there any more, and what stands below it."""
    return _image(hit), f"{hit.score:.3f}  {Path(hit.path).name}"


def _image(hit: Hit) -> Image.Image | None:
    """From its file, shard or table."""
    try:
        return for_display(content_of(hit.path, hit.root), hit.path, _SIDE)
    except (ClipError, OSError, KeyError, tarfile.TarError):
        return None
