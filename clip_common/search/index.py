"""The interface of an index over a store's embeddings, which is a file or a Milvus server."""

from __future__ import annotations

import os
import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..embedding.folders import is_store
from ..errors import RequestError
from ..inputs import check_count
from ..system.addresses import BUCKETS
from ..system.optional import require_package
from ..system.words import counted
from .hits import Filter, Hit, as_kept, fold

if TYPE_CHECKING:
    from ..embedding.origin import Origin
    from ..embedding.store import Store

Rows = dict[str, tuple[str, str]]
"""Stamp and root of each row, by the key of the row: its path, or an id made of it."""


@dataclass
class Changes:
    """The result of a synchronisation, as numbers of rows.

    Attributes:
        unusable: left out because their embeddings are not finite.
    """

    added: int = 0
    removed: int = 0
    kept: int = 0
    unusable: int = 0


class Index(ABC):
    """An index over stored embeddings; `open_index` opens one."""

    address: str

    @abstractmethod
    def sync(self, store: Store, prune_all: bool = False) -> Changes:
        """Update the index to the content of a store: add new and changed rows, remove the others.

        Args:
            store: the store.
            prune_all: allow that all existing rows are removed, or rows of images below another folder.

        Raises:
            RequestError: the store is empty, or the index is not writable or belongs to another store.
        """

    @abstractmethod
    def require(self, origin: Origin) -> None:
        """Check that the index contains embeddings of this model.

        Raises:
            RequestError: it does not.
        """

    @abstractmethod
    def find(self, origin: Origin, path: str) -> tuple[str, np.ndarray]:
        """Look up an image by its path.

        Returns:
            Its stored path, and its embedding, float32 [embed_dim].

        Raises:
            RequestError: there is no such image, or the index has no embeddings of this model.
        """

    @abstractmethod
    def ranked(
        self, origin: Origin, vector: np.ndarray, count: int, limit_to: Filter
    ) -> Iterator[tuple[Hit, np.ndarray]]:
        """Iterate over the nearest images and their embeddings, best first.

        Args:
            origin: the model that made `vector`.
            vector: query embedding, [embed_dim], of unit length.
            count: number of results that the caller probably needs; more can be iterated.
            limit_to: conditions on the results.

        Raises:
            RequestError: the index has no embeddings of this model.
        """

    def current(self) -> Index:
        """The index in its current state: a new object if its file was replaced, else this one."""
        return self

    @abstractmethod
    def close(self) -> None:
        """Release the file or the connection."""

    def search(
        self,
        origin: Origin,
        vector: np.ndarray,
        top_k: int,
        limit_to: Filter | None = None,
        threshold: float | None = None,
    ) -> list[Hit]:
        """Find the nearest images by cosine, best first.

        Args:
            origin: the model that made `vector`.
            vector: query embedding, [embed_dim], of unit length.
            top_k: maximum number of results.
            limit_to: conditions on the results.
            threshold: cosine from which near-duplicates are folded into one result, see `fold`.

        Raises:
            RequestError: the index has no embeddings of this model, or `top_k` is not a whole number from 1.
        """
        check_count("top_k", top_k)
        top_k = min(top_k, sys.maxsize >> 1)  # more is the same, and not for every library a number
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
    """Open the index at an address: a file, or `http://HOST:19530` of a Milvus server.

    Args:
        address: the address.
        must_exist: raise if there is no such file.

    Raises:
        RequestError: it cannot be opened, or needs the extra [search].
    """
    if not is_server(address):
        refuse_store(address)
        from .file_index import FileIndex

        return FileIndex(address, must_exist)
    require_package("pymilvus", "search")
    from .milvus_index import MilvusIndex

    return MilvusIndex(address)


def refuse_store(address: str) -> None:
    """Check that an index is not a folder of embeddings.

    Raises:
        RequestError: it is; the message has the command that makes an index of them.
    """
    if is_store(address):
        raise _is_store(address, f"{address.rstrip('/')}.db")


def _is_store(address: str, index: str) -> RequestError:
    command = f"clip-hub index {shlex.quote(address)} --index {shlex.quote(index)}"
    return RequestError(
        f"{address} holds embeddings, not an index: run `{command}` and give {index} as the index"
    )


def is_server(address: str) -> bool:
    """Whether an address is that of a server and not a file.

    Raises:
        RequestError: unknown URL scheme.
    """
    kind, mark, _ = address.partition("://")
    if mark and kind.lower() in BUCKETS:
        raise _is_store(address, f"{address.rstrip('/').rpartition('/')[2]}.db")
    if mark and kind not in ("http", "https"):
        raise RequestError(f"--index {address}: give a file, or http://HOST:19530 of a Milvus server")
    return bool(mark)


def stamps_of(store: Store) -> Iterator[tuple[str, str]]:
    """Path and stamp of each row of a store."""
    for table in store.tables(["path", "stamp"]):
        yield from zip(table["path"].to_pylist(), table["stamp"].to_pylist(), strict=True)


def changes_of(there: Rows, wanted: Rows) -> Changes:
    """The changes from the existing rows to the wanted ones."""
    kept = sum(there.get(key) == row for key, row in wanted.items())
    return Changes(len(wanted) - kept, len(there.keys() - wanted.keys()), kept)


def require_same_store(
    address: str, folder: Path | str, there: Rows, wanted: Mapping[str, tuple[str, str]], root: str
) -> None:
    """Check that an index belongs to a store, whose rows would replace all others.

    Moved images are recognised: they have the same stamps below another root.

    Raises:
        RequestError: the index belongs to another store.
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
        f"the index {address} holds another store: {what}; choose another --index, or give --prune_all "
        "to remove them"
    )


def spellings(path: str, root: str) -> list[str]:
    """The possible stored forms of a path that a user typed, most likely first."""
    names = [name for way in (path, os.path.abspath(path)) for name in as_kept(way)]  # noqa: PTH100
    top = os.path.join(root, "")  # noqa: PTH118
    below = [name[len(top) :] for name in names if root and name.startswith(top)]
    return list(dict.fromkeys([*names, *below]))


def no_such_image(address: str, path: str) -> RequestError:
    """The error for an image that is not in the index."""
    return RequestError(
        f"--like {path}: {address} has no image with this path; give a path as `search` prints it"
    )
