"""An index of a store's vectors in Milvus: a file by default (Milvus Lite), a server by its address.

The same client speaks to both, so what works on a laptop works on a cluster.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from ..embedding.store import Origin, Store, vectors_of
from ..errors import RequestError
from ..system.cache import digest_of
from ..system.file_names import escape_name
from .hits import Filter, Hit

_ROWS_AT_ONCE = 2000
_MAX_RESULTS = 16384  # Milvus's own
_MAX_PATH = 4096  # bytes
_FIELDS = ("path", "root", "width", "height", "caption")

# They also log what they raise.
for _name in ("pymilvus", "pymilvus.milvus_client", "milvus_lite", "grpc"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


@dataclass
class Changes:
    """What a synchronisation did."""

    added: int = 0
    removed: int = 0
    kept: int = 0


class Index:
    """An index at an address: a file that ends in `.db`, or `http://host:19530` of a server.

    Raises:
        RequestError: it cannot be opened.
    """

    def __init__(self, address: str, must_exist: bool = False) -> None:
        self.address = address
        self._is_file = "://" not in address
        if self._is_file and not address.endswith(".db"):
            raise RequestError(f"--index {address}: a file must end in .db; a server is http://HOST:19530")
        if self._is_file and must_exist and not Path(address).exists():
            raise RequestError(f"--index {address}: no such file; make it with `index`")
        if self._is_file:
            file = Path(address).resolve()
            if escape_name(str(file)) != str(file):
                raise RequestError(f"--index {address}: Milvus needs a path in UTF-8: choose another place")
            file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._client = MilvusClient(str(Path(address).resolve()) if self._is_file else address)
        except (MilvusException, OSError) as error:
            cause = _message(error)
            if self._is_file and _is_locked(Path(address)):
                cause = "another process uses it; wait for it to end, or use a server"
            raise RequestError(f"the index {address} cannot be opened: {cause}") from error

    def close(self) -> None:
        """Let go of the file."""
        self._client.close()

    def sync(self, store: Store) -> Changes:
        """Make the index hold what the store holds: add what is new or changed, remove what is gone.

        Raises:
            RequestError: the store is empty, or the index cannot be written.
        """
        origin = store.origin()
        if origin is None:
            raise RequestError(f"{store.folder} holds no vectors: make them with `embed`")
        with self._errors("cannot be written"):
            collection = _collection(origin)
            self._create(collection, origin.embed_dim)
            self._client.load_collection(collection)
            there = self._stamps(collection)
            root = escape_name(str(store.root() or ""))
            wanted = {_id(path): stamp for path, stamp in _paths(store, root)}
            stale = [id_ for id_, stamp in there.items() if wanted.get(id_) != stamp]
            for start in range(0, len(stale), _ROWS_AT_ONCE):
                self._client.delete(collection, ids=stale[start : start + _ROWS_AT_ONCE])
            new = {id_ for id_, stamp in wanted.items() if there.get(id_) != stamp}
            for rows in _new_rows(store, new, root):
                self._client.insert(collection, rows)
            self._client.flush(collection)
        return Changes(len(new), sum(id_ not in wanted for id_ in stale), len(wanted) - len(new))

    def search(
        self, origin: Origin, vector: np.ndarray, top_k: int, limit_to: Filter | None = None
    ) -> list[Hit]:
        """The nearest by cosine, best first.

        Args:
            origin: the model that made `vector`; an address may hold indexes of several.
            vector: [embed_dim], of unit length.
            top_k: how many.
            limit_to: what they are limited to.

        Raises:
            RequestError: nothing is indexed that this model made.
        """
        collection = _collection(origin)
        limit_to = limit_to or Filter()
        with self._errors("cannot be searched"):
            if not self._client.has_collection(collection):
                raise RequestError(
                    f"{self.address} holds no index of {origin.module} with these weights: make it with "
                    "`index`, or say --module and --weights as they were for `embed`"
                )
            self._client.load_collection(collection)
            fields = [name for name in _FIELDS if name in self._fields(collection)]
            expression = limit_to.expression(self._root(collection) if "root" in fields else "")
            asked = top_k
            while True:
                (found,) = self._client.search(
                    collection,
                    data=[vector.astype(np.float32)],
                    limit=min(asked, _MAX_RESULTS),
                    filter=expression,
                    output_fields=fields,
                )
                hits = [Hit(score=float(hit["distance"]), **hit["entity"]) for hit in found]
                allowed = [hit for hit in hits if limit_to.allows(hit)]
                if len(allowed) >= top_k or len(hits) < asked or asked >= _MAX_RESULTS:
                    return allowed[:top_k]
                asked *= 4

    def _root(self, collection: str) -> str:
        """Where the relative paths of an index begin."""
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
        # In a file every vector is looked at, which is exact; a server has an index for millions.
        kind = "FLAT" if self._is_file else "AUTOINDEX"
        parameters.add_index("vector", index_type=kind, metric_type="COSINE")
        self._client.create_collection(collection, schema=schema, index_params=parameters)

    def _stamps(self, collection: str) -> dict[str, str]:
        found: dict[str, str] = {}
        iterator = self._client.query_iterator(
            collection, batch_size=_ROWS_AT_ONCE, output_fields=["id", "stamp"]
        )
        while rows := iterator.next():
            found.update((row["id"], row["stamp"]) for row in rows)
        iterator.close()
        return found

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (MilvusException, OSError) as error:
            raise RequestError(f"the index {self.address} {what}: {_message(error)}") from error


def _collection(origin: Origin) -> str:
    """Its name says what made the vectors: a schema's description gets lost in Milvus Lite."""
    return f"clip_hub__{origin.module}__{origin.weights_sha256}"


def _id(path: str) -> str:
    return digest_of(path)[:32]


def _message(error: Exception) -> str:
    """What a library says, on one line, without its wrapping."""
    return " ".join(str(getattr(error, "message", None) or error).split())


def _is_locked(file: Path) -> bool:
    """Whether another process holds Milvus Lite's lock of a database."""
    try:
        with (file / "LOCK").open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _paths(store: Store, root: str) -> Iterator[tuple[str, str]]:
    for table in store.tables(["path", "stamp"]):
        paths, stamps = table["path"].to_pylist(), table["stamp"].to_pylist()
        yield from ((path, _stamp(stamp, root)) for path, stamp in zip(paths, stamps, strict=True))


def _stamp(stamp: str, root: str) -> str:
    """Changes with the row, also when only its root does."""
    return _cut(f"{stamp} {digest_of(root)[:8]}" if root else stamp)


def _new_rows(store: Store, wanted: set[str], root: str) -> Iterator[list[dict[str, Any]]]:
    for table in store.tables():
        vectors = vectors_of(table)
        rows = [
            {
                "id": _id(row["path"]),
                "stamp": _stamp(row["stamp"], root),
                "path": _cut(row["path"]),
                "root": _cut(root),
                "caption": _cut(row["caption"] or ""),
                "width": row["width"] or 0,
                "height": row["height"] or 0,
                "vector": vector,
            }
            for row, vector in zip(table.drop_columns(["vector"]).to_pylist(), vectors, strict=True)
            if _id(row["path"]) in wanted
        ]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            yield rows[start : start + _ROWS_AT_ONCE]


def _cut(text: str) -> str:
    """What fits into a field."""
    return text.encode("utf-8", "replace")[:_MAX_PATH].decode("utf-8", "ignore")
