"""What the page's search tab looks into: the index that CLIP_HUB_INDEX names."""

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

INDEX = "CLIP_HUB_INDEX"


class Found(NamedTuple):
    """A result: its thumbnail, what stands below it, and its path in the index."""

    image: Image.Image
    caption: str
    path: str


class Finder:
    """Searches one index with one module's embeddings, from any thread. The first search opens the index.

    Args:
        address: as `index` was given it.
        predictor: of the module, with its weights, that made the index.
    """

    def __init__(self, address: str, predictor: Predictor) -> None:
        if is_server(address):
            require_package("pymilvus", "search")
        self._address, self._predictor = address, predictor
        self._opened: Index | None = None

    def __call__(self, vector: np.ndarray, top_k: int, path: str | None) -> list[Found]:
        """The images nearest to a vector [d] of unit length, best first.

        Args:
            vector: of unit length, [d].
            top_k: how many; one that is not there any more is left out.
            path: a pattern that their paths must match.

        Raises:
            RequestError: the index cannot be searched, or is of another module.
        """
        return _shown(self._index().search(self._origin(), vector, top_k, Filter(path)))

    def like(self, image: str, top_k: int, path: str | None) -> list[Found]:
        """The images nearest to one of the index, by its path there, which is not among them.

        Raises:
            RequestError: it is not there, or as above.
        """
        index, origin = self._index(), self._origin()
        name, vector = index.find(origin, image)
        limit_to = replace(Filter(path), without=frozenset([name]))
        return _shown(index.search(origin, vector, top_k, limit_to))

    def _origin(self) -> Origin:
        return Origin.of(self._predictor)

    def _index(self) -> Index:
        """The index as it is now: a file may have been replaced."""
        opened = self._opened
        self._opened = opened.current() if opened else open_index(self._address, must_exist=True)
        return self._opened


def _shown(hits: Sequence[Hit]) -> list[Found]:
    cells = ((*cell(hit), hit.path) for hit in hits)
    return [Found(image, caption, path) for image, caption, path in cells if image is not None]


def finder_of(record: Pretrained, options: PredictorOptions) -> Finder | None:
    """A module's finder; None where CLIP_HUB_INDEX is not set.

    Raises:
        RequestError: it is set to a server's address, and the extra [search] is not installed.
    """
    address = os.environ.get(INDEX)
    return Finder(address, options.predictor(record)) if address else None
