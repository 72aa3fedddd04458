"""The images of one or several stores, loaded into memory with their embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..embedding.origin import Origin
from ..embedding.store import Store, vectors_of
from ..errors import RequestError
from ..system.file_names import escape_name, from_top, unescape_name

_LEAST_LENGTH = 1e-6  # a shorter embedding counts as zero


@dataclass(frozen=True)
class StoredImage:
    """An image of a store.

    Attributes:
        path: its path in the store.
        root: the folder that a relative `path` starts from, escaped by `escape_name`.
        sha256: hash of its file.
    """

    path: str
    root: str
    width: int
    height: int
    sha256: str | None

    @property
    def file(self) -> str:
        """Its absolute path, unescaped."""
        return from_top(unescape_name(self.path), unescape_name(self.root))

    @property
    def place(self) -> str:
        """Its absolute path, escaped as in the store."""
        return from_top(self.path, self.root)


@dataclass(frozen=True)
class StoredImages:
    """Images and their embeddings.

    Attributes:
        embeddings: float32 [images, embed_dim], of unit length.
        unusable: number of images left out because their embeddings are zero or not finite.
        texts: number of texts left out.
        repeated: number of images left out because an earlier store has the same file.
    """

    origin: Origin
    images: list[StoredImage]
    embeddings: np.ndarray
    unusable: int
    texts: int
    repeated: int

    def __len__(self) -> int:
        return len(self.images)


def read_images(folders: Sequence[Path | str]) -> StoredImages:
    """Load the images of some stores. Takes 4 bytes of memory per number of an embedding.

    Args:
        folders: folders of the stores. All must be made with one model and the same options; the stored type
            may differ.

    Raises:
        RequestError: a store is empty or damaged, the stores differ in their model, or contain no images.
    """
    stores = [Store(folder) for folder in folders]
    origin = _common_origin(stores)
    rows = [row for store in stores for row in _rows(store)]
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        if row is not None:
            first.setdefault(row.place, number)
    wanted = set(first.values())
    embeddings = np.empty((len(wanted), origin.embed_dim), np.float32)
    images: list[StoredImage] = []
    number = 0
    for table in (table for store in stores for table in store.tables(["vector"])):
        chosen = [i for i in range(table.num_rows) if number + i in wanted]
        part = vectors_of(table)[chosen]
        lengths = np.linalg.norm(part, axis=1)
        usable = np.isfinite(lengths) & (lengths > _LEAST_LENGTH)
        kept = [row for i in np.flatnonzero(usable) if (row := rows[number + chosen[i]])]
        embeddings[len(images) : len(images) + len(kept)] = part[usable] / lengths[usable, None]
        images += kept
        number += table.num_rows
    texts = sum(row is None for row in rows)
    if not images:
        raise RequestError(f"{', '.join(map(str, folders))}: no embeddings of images; make them with `embed`")
    repeated = len(rows) - texts - len(wanted)
    return StoredImages(origin, images, embeddings[: len(images)], len(wanted) - len(images), texts, repeated)


def _common_origin(stores: Sequence[Store]) -> Origin:
    """The origin of the embeddings of all stores, which must agree except for the stored type."""
    origins = [store.require_origin() for store in stores]
    for store, origin in zip(stores, origins, strict=True):
        if replace(origin, dtype=origins[0].dtype) != origins[0]:
            raise RequestError(
                f"{store.folder} holds embeddings of {origin}, {stores[0].folder} of {origins[0]}: only "
                "those of one model, made with the same options, can be compared"
            )
    return origins[0]


def _rows(store: Store) -> Iterator[StoredImage | None]:
    """The images of a store, in order; None for a text."""
    root = escape_name(str(store.root() or ""))
    names = ["path", "width", "height", "sha256"]
    for table in store.tables(names):
        for path, width, height, sha256 in zip(*(table[name].to_pylist() for name in names), strict=True):
            yield None if width is None else StoredImage(path, root, width, height or 0, sha256)
