"""An index on a Milvus server, for more embeddings than one machine can scan, or for many users.

The tests use Milvus Lite, which has the same client and needs no server.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from ..embedding.origin import Origin
from ..embedding.store import Store, vectors_of
from ..errors import RequestError
from ..system.cache import digest_of
from ..system.file_names import escape_name
from .hits import Filter, Hit
from .index import Changes, Index, Rows, changes_of, no_such_image, require_same_store, spellings, stamps_of

_ROWS_AT_ONCE = 2000
_MAX_RESULTS = 16384  # Milvus's limit
_MAX_PATH = 4096  # bytes
_FAULTS = (MilvusException, OSError, grpc.RpcError)
_ANSWER = 60.0  # seconds for an answer
_LOADING = 3600.0  # seconds for what reads or writes a whole collection, of a billion rows perhaps
_INDEX_TYPE = "AUTOINDEX"  # the server's choice
_FIELDS = ("path", "root", "width", "height", "caption")

# These libraries also log the errors that they raise.
for _name in ("pymilvus", "pymilvus.milvus_client", "milvus_lite", "grpc"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class _Client:
    """Milvus's own client, which waits for an answer without limit where none is given."""

    def __init__(self, client: MilvusClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        limited = "timeout" in inspect.signature(method).parameters
        return partial(method, timeout=_ANSWER) if limited else method


class MilvusIndex(Index):
    """An index on a Milvus server, `http://HOST:19530`, with one collection per model.

    Raises:
        RequestError: the server cannot be reached.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        try:
            self._client = _Client(MilvusClient(address))
        except _FAULTS as error:
            raise RequestError(f"the index {address} cannot be opened: {_message(error)}") from error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def sync(self, store: Store, prune_all: bool = False) -> Changes:
        """See `Index.sync`; only changed rows are written."""
        origin = store.require_origin()
        with self._errors("cannot be written"):
            collection = _collection(origin)
            self._create(collection, origin.embed_dim)
            self._client.load_collection(collection, timeout=_LOADING)
            there = self._rows(collection)
            root = _cut(escape_name(str(store.root() or "")))
            wanted = {_id(path): (_cut(stamp), root) for path, stamp in stamps_of(store)}
            if not prune_all:
                require_same_store(self.address, store.folder, there, wanted, root)
            changes = changes_of(there, wanted)
            stale = [id_ for id_, row in there.items() if wanted.get(id_) != row]
            for start in range(0, len(stale), _ROWS_AT_ONCE):
                self._client.delete(collection, ids=stale[start : start + _ROWS_AT_ONCE])
            new = {id_ for id_, row in wanted.items() if there.get(id_) != row}
            for rows, unusable in _new_rows(store, new, root):
                changes.unusable += unusable
                for start in range(0, len(rows), _ROWS_AT_ONCE):
                    self._client.insert(collection, rows[start : start + _ROWS_AT_ONCE])
            self._client.flush(collection, timeout=_LOADING)
        changes.added -= changes.unusable
        return changes

    def require(self, origin: Origin) -> None:
        """See `Index.require`."""
        with self._errors("cannot be searched"):
            self._loaded(origin)

    def find(self, origin: Origin, path: str) -> tuple[str, np.ndarray]:
        """See `Index.find`."""
        with self._errors("cannot be searched"):
            collection = self._loaded(origin)
            names = spellings(path, self._root(collection))
            ids = [_id(name) for name in names]
            rows = self._client.get(collection, ids=ids, output_fields=["id", "path", "vector"])
        if not rows:
            raise no_such_image(self.address, path)
        row = min(rows, key=lambda row: ids.index(row["id"]))
        return row["path"], np.array(row["vector"], np.float32)

    def ranked(
        self, origin: Origin, vector: np.ndarray, count: int, limit_to: Filter
    ) -> Iterator[tuple[Hit, np.ndarray]]:
        """See `Index.ranked`; the search is approximate, and ends after 16384 results."""
        with self._errors("cannot be searched"):
            collection = self._loaded(origin)
            fields = [name for name in _FIELDS if name in self._fields(collection)]
            expression = limit_to.expression(self._root(collection) if "root" in fields else "")
            asked, seen = min(count, _MAX_RESULTS), 0
            while True:
                (found,) = self._client.search(
                    collection,
                    data=[vector.astype(np.float32)],
                    limit=asked,
                    filter=expression,
                    output_fields=[*fields, "vector"],
                )
                for result in found[seen:]:
                    entity = result["entity"]
                    near = np.array(entity.pop("vector"), np.float32)
                    hit = Hit(score=float(result["distance"]), **entity)
                    if hit.score < limit_to.min_score:
                        return
                    if limit_to.allowed_paths([hit.path], hit.root)[0]:
                        yield hit, near
                if len(found) < asked or asked == _MAX_RESULTS:
                    return
                asked, seen = min(4 * asked, _MAX_RESULTS), len(found)

    def _loaded(self, origin: Origin) -> str:
        """The collection of a model, loaded for searching.

        Raises:
            RequestError: there is none.
        """
        collection = _collection(origin)
        if not self._client.has_collection(collection):
            raise RequestError(
                f"{self.address} holds no index of {origin.module} with these weights: make it with "
                "`index`, or give the --module and --weights that `embed` used"
            )
        self._client.load_collection(collection, timeout=_LOADING)
        return collection

    def _root(self, collection: str) -> str:
        """The folder that the relative paths of a collection start from."""
        rows = self._client.query(collection, filter="", output_fields=["root"], limit=1)
        return rows[0]["root"] if rows else ""

    def _fields(self, collection: str) -> set[str]:
        return {field["name"] for field in self._client.describe_collection(collection)["fields"]}

    def _create(self, collection: str, embed_dim: int) -> None:
        if self._client.has_collection(collection):
            if "root" in self._fields(collection):
                return
            self._client.drop_collection(collection)  # of an earlier version; the store has all of it
        schema = self._client.create_schema()
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("stamp", DataType.VARCHAR, max_length=_MAX_PATH)
        schema.add_field("path", DataType.VARCHAR, max_length=_MAX_PATH)
        schema.add_field("root", DataType.VARCHAR, max_length=_MAX_PATH)
        schema.add_field("caption", DataType.VARCHAR, max_length=_MAX_PATH)
        schema.add_field("width", DataType.INT64)
        schema.add_field("height", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=embed_dim)
        parameters = self._client.prepare_index_params()
        parameters.add_index("vector", index_type=_INDEX_TYPE, metric_type="COSINE")
        self._client.create_collection(collection, schema=schema, index_params=parameters, timeout=_LOADING)

    def _rows(self, collection: str) -> Rows:
        found: Rows = {}
        iterator = self._client.query_iterator(
            collection, batch_size=_ROWS_AT_ONCE, output_fields=["id", "stamp", "root"]
        )
        while rows := iterator.next():
            found.update((row["id"], (row["stamp"], row["root"])) for row in rows)
        iterator.close()
        return found

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except _FAULTS as error:
            raise RequestError(f"the index {self.address} {what}: {_message(error)}") from error


def _collection(origin: Origin) -> str:
    """The name of a model's collection. (Milvus Lite does not keep a schema's description.)"""
    return f"clip_hub__{origin.module}__{origin.weights_sha256}"


def _id(path: str) -> str:
    return digest_of(path)[:32]


def _message(error: Exception) -> str:
    """The message of a library's exception, on one line."""
    said = error.details() if isinstance(error, grpc.RpcError) else getattr(error, "message", None)
    return " ".join(str(said or error).split())


def _new_rows(store: Store, wanted: set[str], root: str) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """For each part, the wanted rows, and how many are left out because their embeddings are not finite."""
    for table in store.tables():
        vectors = vectors_of(table)
        pairs = [
            (row, vector)
            for row, vector in zip(table.drop_columns(["vector"]).to_pylist(), vectors, strict=True)
            if _id(row["path"]) in wanted
        ]
        rows = [
            {
                "id": _id(row["path"]),
                "stamp": _cut(row["stamp"]),
                "path": _cut(row["path"]),
                "root": root,
                "caption": _cut(row["caption"] or ""),
                "width": row["width"] or 0,
                "height": row["height"] or 0,
                "vector": vector,
            }
            for row, vector in pairs
            if np.isfinite(vector).all()
        ]
        yield rows, len(pairs) - len(rows)


def _cut(text: str) -> str:
    """Truncate a text to the size of a field."""
    return text.encode("utf-8", "replace")[:_MAX_PATH].decode("utf-8", "ignore")
