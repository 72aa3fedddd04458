"""What the page's search tab looks into: the index that CLIP_HUB_INDEX names."""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..config import Pretrained
from ..embedding.embed import Job
from ..predictor import PredictorOptions
from ..system.optional import require_package
from .hits import Filter
from .query import cell

if TYPE_CHECKING:
    from ..embedding.store import Origin
    from .index import Index

INDEX = "CLIP_HUB_INDEX"


class Finder:
    """Searches one index with one module's vectors. The index is opened by the first search.

    Args:
        address: as `index` was given it.
        job: the module, and its weights, that made the index.
    """

    def __init__(self, address: str, job: Job) -> None:
        require_package("pymilvus", "search")
        self._address, self._job = address, job
        self._lock = Lock()
        self._opened: tuple[Index, Origin] | None = None

    def __call__(self, vector: np.ndarray, top_k: int, path: str | None) -> list[tuple[Image.Image, str]]:
        """The images nearest to a vector [d] of unit length, each with its score and name, best first.

        Args:
            vector: of unit length, [d].
            top_k: how many; one that is not there any more is left out.
            path: a pattern that their paths must match.

        Raises:
            RequestError: the index cannot be searched, or is of another module.
        """
        with self._lock:  # Milvus Lite's client is not for threads
            index, origin = self._open()
            hits = index.search(origin, vector, top_k, Filter(path))
        return [(image, caption) for image, caption in map(cell, hits) if image is not None]

    def _open(self) -> tuple[Index, Origin]:
        from .index import Index

        if self._opened is None:
            index = Index(self._address, must_exist=True)
            self._opened = index, self._job.origin(self._job.predictor())
        return self._opened


def finder_of(record: Pretrained, options: PredictorOptions) -> Finder | None:
    """A module's finder; None where CLIP_HUB_INDEX is not set.

    Raises:
        RequestError: it is set, and the extra [search] is not installed.
    """
    address = os.environ.get(INDEX)
    return Finder(address, Job(record, options)) if address else None
