"""An index of a store's embeddings: a file, or a Milvus server; both are asked in the same way."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import RequestError
from ..system.optional import require_package
from ..system.words import counted
from .hits import Filter, Hit, as_kept, fold

if TYPE_CHECKING:
    from ..embedding.origin import Origin
    from ..embedding.store import Store

Rows = dict[str, tuple[str, str]]
"""Of each row the stamp and the root, by its path or what stands for that."""


@dataclass
class Changes:
    """What a synchronisation did.

    Attributes:
        unusable: were left out, since their embeddings hold something that is no number.
    """

    added: int = 0
    removed: int = 0
    kept: int = 0
    unusable: int = 0


class Index(ABC):
    """An index, as `open_index` gives it."""

    address: str

    @abstractmethod
    def sync(self, store: Store, prune_all: bool = False) -> Changes:
        """Make the index hold what the store holds: add what is new or changed, remove what is gone.

        Args:
            store: what to hold.
            prune_all: even if nothing of what there was stays, or it is of images below another folder.

        Raises:
            RequestError: the store is empty, or the index cannot be written, or holds another store.
        """

    @abstractmethod
    def require(self, origin: Origin) -> None:
        """Check that a model's embeddings are in the index.

        Raises:
            RequestError: nothing is indexed that it made.
        """

    @abstractmethod
    def find(self, origin: Origin, path: str) -> tuple[str, np.ndarray]:
        """The path as it is kept, and the embedding [embed_dim], of an image in the index.

        Raises:
            RequestError: there is none of that path, or nothing is indexed that this model made.
        """

    @abstractmethod
    def ranked(
        self, origin: Origin, vector: np.ndarray, count: int, limit_to: Filter
    ) -> Iterator[tuple[Hit, np.ndarray]]:
        """The nearest by cosine with their embeddings, best first; usually `count` of them are needed.

        Raises:
            RequestError: nothing is indexed that this model made.
        """

    def current(self) -> Index:
        """The index as it is now; this one, unless it is a file that was replaced since."""
        return self

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""

    def search(
        self,
        origin: Origin,
        vector: np.ndarray,
        top_k: int,
        limit_to: Filter | None = None,
        threshold: float | None = None,
    ) -> list[Hit]:
        """The nearest by cosine, best first.

        Args:
            origin: the model that made `vector`.
            vector: [embed_dim], of unit length.
            top_k: how many.
            limit_to: what they are limited to.
            threshold: fold near-duplicates from this cosine on, see `fold`.

        Raises:
            RequestError: nothing is indexed that this model made.
        """
        limit_to = limit_to or Filter()
        ranked = (
            pair
            for pair in self.ranked(origin, vector, top_k + len(limit_to.without), limit_to)
            if pair[0].path not in limit_to.without
        )
        if threshold is not None:
            return fold(ranked, top_k, threshold)
        return [hit for hit, _ in islice(ranked, top_k)]


def open_index(address: str, must_exist: bool = False) -> Index:
    """The index at an address: a file, or `http://HOST:19530` of a Milvus server.

    Raises:
        RequestError: it cannot be opened, or the extra [search] is wanted for it.
    """
    if not is_server(address):
        from .file_index import FileIndex

        return FileIndex(address, must_exist)
    require_package("pymilvus", "search")
    from .milvus_index import MilvusIndex

    return MilvusIndex(address)


def is_server(address: str) -> bool:
    """Whether an address is a server's.

    Raises:
        RequestError: it is an address of another kind.
    """
    kind, mark, _ = address.partition("://")
    if mark and kind not in ("http", "https"):
        raise RequestError(f"--index {address}: give a file, or http://HOST:19530 of a Milvus server")
    return bool(mark)


def stamps_of(store: Store) -> Iterator[tuple[str, str]]:
    """Path and stamp of each row of a store."""
    for table in store.tables(["path", "stamp"]):
        yield from zip(table["path"].to_pylist(), table["stamp"].to_pylist(), strict=True)


def changes_of(there: Rows, wanted: Rows) -> Changes:
    """What makes the rows that are wanted of those that are there."""
    kept = sum(there.get(key) == row for key, row in wanted.items())
    return Changes(len(wanted) - kept, len(there.keys() - wanted.keys()), kept)


def require_same_store(
    address: str, folder: Path | str, there: Rows, wanted: Mapping[str, tuple[str, str]], root: str
) -> None:
    """Refuse a store that is not the one that an index holds: its rows would take the others' place.

    Images that only moved keep their stamps, below another root.

    Raises:
        RequestError: it is another one.
    """
    others = [
        row_root
        for key, (stamp, row_root) in there.items()
        if row_root != root and (key not in wanted or wanted[key][0] != stamp)
    ]
    if others:
        below = others[0] or "no known folder"
        are = "is of an image" if len(others) == 1 else "are of images"
        what = f"{len(others)} of its {counted(len(there), 'row')} {are} below {below}"
    elif there and not there.keys() & wanted.keys():
        what = f"none of its {counted(len(there), 'row')} is in {folder}"
    else:
        return
    raise RequestError(
        f"the index {address} holds another store: {what}; choose another --index, or say --prune_all to "
        "take them out"
    )


def spellings(path: str, root: str) -> list[str]:
    """What a path that a user typed may be called in an index: as it is kept, or from the top; the likeliest
    first.
    """
    names = [name for way in (path, os.path.abspath(path)) for name in as_kept(way)]  # noqa: PTH100
    top = os.path.join(root, "")  # noqa: PTH118
    below = [name[len(top) :] for name in names if root and name.startswith(top)]
    return list(dict.fromkeys([*names, *below]))


def no_such_image(address: str, path: str) -> RequestError:
    """The error for an image that an index does not hold."""
    return RequestError(
        f"--like {path}: {address} holds no image of that path; give one as `search` prints it"
    )
