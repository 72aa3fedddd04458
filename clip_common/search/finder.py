"""Search for the web page: the index that CLIP_HUB_INDEX names, queried by embedding."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..config import Pretrained
from ..embedding.origin import Origin
from ..predictor import Predictor, PredictorOptions
from ..system.optional import require_package
from .contact_sheet import cell
from .hits import Filter, Hit
from .index import Index, is_server, open_index

INDEX_VARIABLE = "CLIP_HUB_INDEX"


class Found(NamedTuple):
    """A search result for display: thumbnail, caption, and path in the index."""

    image: Image.Image
    caption: str
    path: str


class Finder:
    """Searches one index with one module's embeddings. The first search opens the index. Thread-safe.

    Args:
        address: address of the index, as for the command `index`.
        predictor: the module and weights that the index was made with.
    """

    def __init__(self, address: str, predictor: Predictor) -> None:
        if is_server(address):
            require_package("pymilvus", "search")
        self._address, self._predictor = address, predictor
        self._opened: Index | None = None

    def __call__(self, vector: np.ndarray, top_k: int, path: str | None) -> list[Found]:
        """Find the images nearest to an embedding, best first.

        Args:
            vector: query embedding, [d], of unit length.
            top_k: maximum number of results. Images whose file no longer exists are left out.
            path: a pattern that the paths must match, see `Filter`.

        Raises:
            RequestError: the index cannot be searched, or was made with another module.
        """
        return _shown(self._index().search(self._origin(), vector, top_k, Filter(path)))

    def like(self, image: str, top_k: int, path: str | None) -> list[Found]:
        """Find the images nearest to one that is in the index, without that image itself.

        Args:
            image: its path in the index.
            top_k: maximum number of results.
            path: a pattern that the paths must match, see `Filter`.

        Raises:
            RequestError: the image is not in the index, or as for a call.
        """
        index, origin = self._index(), self._origin()
        name, vector = index.find(origin, image)
        limit_to = replace(Filter(path), without=frozenset([name]))
        return _shown(index.search(origin, vector, top_k, limit_to))

    def _origin(self) -> Origin:
        return Origin.of(self._predictor)

    def _index(self) -> Index:
        """The index in its current state: its file may have been replaced."""
        opened = self._opened
        self._opened = opened.current() if opened else open_index(self._address, must_exist=True)
        return self._opened


def _shown(hits: Sequence[Hit]) -> list[Found]:
    cells = ((*cell(hit), hit.path) for hit in hits)
    return [Found(image, caption, path) for image, caption, path in cells if image is not None]


def finder_of(record: Pretrained, options: PredictorOptions) -> Finder | None:
    """The finder for a module; None if CLIP_HUB_INDEX is not set.

    Raises:
        RequestError: it names a Milvus server, and the extra [search] is not installed.
    """
    address = os.environ.get(INDEX_VARIABLE)
    return Finder(address, options.predictor(record)) if address else None
