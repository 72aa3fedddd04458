"""Near-duplicates among stored images: an exact search in blocks, with bounded memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..system.file_names import shown_name, unescape_name
from ..system.words import counted
from .stored_images import StoredImage, StoredImages

_ROWS, _COLUMNS = 1024, 4096  # size of a block of products
_ROUNDING = 1e-6  # rounding error of a cosine: equal images may have slightly less than 1
_ROUNDING_OF_BOUNDS = 1e-5  # rounding error of an upper bound, which may be slightly below the cosine
_ROUNDING_OF_SQUARES = 1e-6  # added to a squared length, so that it is never below the true one
_LEAST_SKETCH = 32  # minimum length of a sketch
_MANY = 1 / 128  # share of candidate pairs from which one matrix product is faster than single products


@dataclass(frozen=True)
class Duplicate:
    """An image that is a near-duplicate of another one.

    Attributes:
        cosine: cosine with the image that its group keeps.
        exact: whether its file is identical to an earlier one of the group.
    """

    image: StoredImage
    cosine: float
    exact: bool


@dataclass(frozen=True)
class Group:
    """An image to keep, and its near-duplicates, nearest first."""

    keep: StoredImage
    duplicates: list[Duplicate]


def find_groups(
    stored: StoredImages, threshold: float, on_progress: Callable[[int], Any] | None = None
) -> list[Group]:
    """Find groups of near-duplicates, the largest first.

    Images are visited from the largest (in pixels, then by path) to the smallest. An image whose cosine with
    an image kept before is at least the threshold joins the nearest such image; any other image is kept. So
    every image of a group is similar to the one kept, and chains of small steps do not join distant images.

    Args:
        stored: the images.
        threshold: a cosine, -1 to 1.
        on_progress: called with the number of pairs that were compared since the last call.
    """
    order = sorted(range(len(stored)), key=lambda i: _preference(stored.images[i]))
    images = [stored.images[i] for i in order]
    nearest, cosines = _nearest_kept(stored.embeddings[order], threshold, on_progress)
    members: dict[int, list[int]] = {}
    for i in np.flatnonzero(nearest >= 0).tolist():
        members.setdefault(int(nearest[i]), []).append(i)
    groups = []
    for keep, found in members.items():
        found.sort(key=lambda i: (-cosines[i], images[i].path))
        files = {images[keep].sha256}
        duplicates = []
        for i in found:
            sha256 = images[i].sha256
            duplicates.append(Duplicate(images[i], float(cosines[i]), sha256 is not None and sha256 in files))
            files.add(sha256)
        groups.append(Group(images[keep], duplicates))
    return sorted(groups, key=lambda group: (-len(group.duplicates), group.keep.path, group.keep.root))


def estimated_seconds(stored: StoredImages) -> float:
    """Estimate the time of `find_groups` if nearly all images are kept, from one block of products."""
    rows, columns = min(_ROWS, len(stored)), min(_COLUMNS, len(stored))
    sketch = _sketch(stored.embeddings[: max(rows, columns)])
    start = time.perf_counter()
    np.count_nonzero(sketch[:rows] @ sketch[:columns].T >= 1)
    seconds = time.perf_counter() - start
    return seconds * pairs_of(len(stored)) / (rows * columns)


def pairs_of(count: int) -> int:
    """The number of pairs among `count` images."""
    return count * (count - 1) // 2


def as_json(stored: StoredImages, groups: list[Group], threshold: float) -> str:
    """Groups as one JSON document, in ASCII, which every console can print."""
    found = [
        {
            "keep": _described(group.keep),
            "duplicates": [
                {**_described(duplicate.image), "cosine": duplicate.cosine, "exact": duplicate.exact}
                for duplicate in group.duplicates
            ],
        }
        for group in groups
    ]
    return json.dumps({"groups": found, "images": len(stored), "threshold": threshold})


def as_table(stored: StoredImages, groups: list[Group]) -> str:
    """Groups as text: a block of lines for each group, the image to keep first; and a summary."""
    lines = []
    several = len({image.root for image in stored.images}) > 1
    for group in groups:
        lines.append(_line("keep", group.keep, several))
        for duplicate in group.duplicates:
            mark = "  (the same file)" if duplicate.exact else ""
            lines.append(_line(f"{duplicate.cosine:.4f}", duplicate.image, several) + mark)
        lines.append("")
    count = sum(len(group.duplicates) for group in groups)
    are = "is a duplicate" if count == 1 else "are duplicates"
    images = counted(len(stored), "image")
    lines.append(f"{count} of {images} {are} of one that is kept; groups: {len(groups)}")
    return "\n".join(lines)


def _line(what: str, image: StoredImage, from_the_top: bool) -> str:
    name = shown_name(image.file if from_the_top else unescape_name(image.path))
    return f"{what:>7}  {image.width:>5} x {image.height:<5}  {name}"


def _described(image: StoredImage) -> dict[str, Any]:
    return {"path": image.path, "root": image.root, "width": image.width, "height": image.height}


def _preference(image: StoredImage) -> tuple[int, str, str]:
    return -image.width * image.height, image.path, image.root


# --- the search ------------------------------------------------------------------------------------------


def _nearest_kept(
    embeddings: np.ndarray, threshold: float, on_progress: Callable[[int], Any] | None
) -> tuple[np.ndarray, np.ndarray]:
    """For each image, the nearest kept image before it or -1 if it is kept, int64 [n]; and the cosine."""
    count = len(embeddings)
    sketch = _sketch(embeddings)
    nearest, cosines = np.full(count, -1), np.full(count, -np.inf, np.float32)
    kept = np.empty(count, np.int64)
    kept_sketch = np.empty_like(sketch)
    number = 0  # of kept images
    for start in range(0, count, _ROWS):
        rows = np.arange(start, min(start + _ROWS, count))
        for left in range(0, number, _COLUMNS):
            columns = slice(left, min(left + _COLUMNS, number))
            bound = sketch[rows] @ kept_sketch[columns].T
            _compare(bound, embeddings, rows, kept[columns], threshold, nearest, cosines)
        _settle(embeddings[rows], start, threshold, nearest, cosines)
        new = rows[nearest[rows] < 0]
        kept[number : number + len(new)] = new
        kept_sketch[number : number + len(new)] = sketch[new]
        number += len(new)
        if on_progress:
            on_progress(pairs_of(int(rows[-1]) + 1) - pairs_of(start))
    return nearest, np.clip(cosines, -1, 1)


def _sketch(embeddings: np.ndarray) -> np.ndarray:
    """Shorter vectors [n, k] whose dot products are upper bounds of the cosines.

    A sketch consists of the coordinates along the principal axes and the length of the remainder: by the
    Cauchy-Schwarz inequality, the remainders of two embeddings contribute at most the product of their
    lengths. An eighth of the dimensions is enough to rule out nearly all pairs.
    """
    width = max(_LEAST_SKETCH, embeddings.shape[1] // 8)
    if width + 1 >= embeddings.shape[1]:
        return embeddings
    some = embeddings[:: -(-len(embeddings) // 20000)]
    axes = np.linalg.eigh(some.T @ some)[1][:, -width:]
    main = embeddings @ axes
    squares = np.clip(1 - np.einsum("ij,ij->i", main, main), 0, None)
    rest = np.sqrt(squares + _ROUNDING_OF_SQUARES)
    return np.concatenate([main, rest[:, None]], axis=1)


def _compare(
    bound: np.ndarray,
    embeddings: np.ndarray,
    rows: np.ndarray,
    kept: np.ndarray,
    threshold: float,
    nearest: np.ndarray,
    cosines: np.ndarray,
) -> None:
    """Update `nearest` and `cosines` of the rows, in place, from a block of kept images.

    Args:
        bound: upper bounds of the cosines, [rows, kept].
        embeddings: of all images, [n, d].
        rows: indices of the images to update.
        kept: indices of the kept images of the block.
        threshold: minimum cosine.
        nearest: nearest kept image of each image, [n].
        cosines: its cosine, [n].
    """
    least = threshold - _ROUNDING
    at = np.flatnonzero(bound >= least - _ROUNDING_OF_BOUNDS)
    if len(at) > _MANY * bound.size:
        products = embeddings[rows] @ embeddings[kept].T
        best = products.argmax(axis=1)
        values, found = products[np.arange(len(rows)), best], rows
    else:
        row, best = np.divmod(at, bound.shape[1])
        found = rows[row]
        values = np.einsum("ij,ij->i", embeddings[found], embeddings[kept[best]])
        ascending = np.argsort(values, kind="stable")  # if a row occurs twice, the last assignment wins
        found, best, values = found[ascending], best[ascending], values[ascending]
    better = (values >= least) & (values > cosines[found])
    nearest[found[better]] = kept[best[better]]
    cosines[found[better]] = values[better]


def _settle(
    block: np.ndarray, start: int, threshold: float, nearest: np.ndarray, cosines: np.ndarray
) -> None:
    """As `_compare`, among the images of one block, each of which is kept or not in turn."""
    products = block @ block.T
    near = np.tril(products >= threshold - _ROUNDING, -1)
    for row in np.flatnonzero(near.any(axis=1)):
        before = np.flatnonzero(near[row] & (nearest[start : start + len(block)] < 0))
        if len(before):
            best = before[products[row, before].argmax()]
            if products[row, best] > cosines[start + row]:
                nearest[start + row], cosines[start + row] = start + best, products[row, best]
