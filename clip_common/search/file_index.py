"""An index in one file, mapped into memory and searched exactly; no database.

The file is in Arrow's IPC format and is replaced atomically, so readers need no lock and never see a partial
file. Columns: `path`, `stamp`, `width`, `height`, `caption`, `vector`. Vectors are always float32: converting
float16 takes five times as long as the rest of a search. The metadata contains the origin of the embeddings
and the root of relative paths.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..embedding.origin import Origin
from ..errors import RequestError
from ..system.file_names import escape_name
from ..system.output import atomic_file, reason_of, require_file
from .hits import Filter, Hit
from .index import Changes, Index, Rows, changes_of, no_such_image, require_same_store, spellings, stamps_of

if TYPE_CHECKING:
    from ..embedding.store import Store

_KEY = b"clip_hub_index"
_VERSION = 1
_BLOCK = 8192  # rows per record batch


@dataclass(frozen=True)
class _Contents:
    """A mapped file. It stays valid and unchanged if the file is replaced."""

    origin: Origin
    root: str
    blocks: list[pa.RecordBatch]
    state: tuple[int, ...]

    @cached_property
    def ends(self) -> np.ndarray:
        """The end (exclusive) of each block, as row numbers, int64 [blocks]."""
        return np.cumsum([block.num_rows for block in self.blocks])

    def place(self, row: int) -> tuple[pa.RecordBatch, int]:
        """The block of a row, and the position of the row in it."""
        number = int(np.searchsorted(self.ends, row, side="right"))
        block = self.blocks[number]
        return block, row - (int(self.ends[number]) - block.num_rows)


class FileIndex(Index):
    """An index in a file.

    Args:
        address: its path.
        must_exist: raise if there is no such file.

    Raises:
        RequestError: it cannot be read, or is not an index.
    """

    def __init__(self, address: str, must_exist: bool = False) -> None:
        self.address = address
        self._must_exist = must_exist
        self._path = Path(os.path.realpath(address))
        self._contents: _Contents | None = self._open()

    def close(self) -> None:
        """Release the mapped file."""
        self._contents = None

    def current(self) -> FileIndex:
        """See `Index.current`."""
        there = self._contents
        same = there is not None and there.state == self._state()
        return self if same else FileIndex(self.address, self._must_exist)

    def sync(self, store: Store, prune_all: bool = False) -> Changes:
        """See `Index.sync`; the file is not rewritten if nothing changed."""
        origin = store.require_origin()
        try:
            require_file(self._path)
        except RequestError as error:
            raise RequestError(f"--index {error}") from None
        root = escape_name(str(store.root() or ""))
        there = self._rows()
        wanted = {path: (stamp, root) for path, stamp in stamps_of(store)}
        if self._contents is not None and not prune_all:
            self._require_same_model(origin)
            require_same_store(self.address, store.folder, there, wanted, root)
        if self._contents is not None and self._contents.origin != origin:
            there = dict.fromkeys(there, ("", ""))  # embedded with other options: all rows are outdated
        changes = changes_of(there, wanted)
        if changes.added or changes.removed or self._contents is None:
            changes.unusable = self._write(store, origin, root)
            changes.added -= changes.unusable
            self._contents = self._open()
        return changes

    def require(self, origin: Origin) -> None:
        """See `Index.require`."""
        self._of(origin)

    def find(self, origin: Origin, path: str) -> tuple[str, np.ndarray]:
        """See `Index.find`."""
        contents = self._of(origin)
        names = spellings(path, contents.root)
        found = {
            stored: _embeddings(block)[place]
            for block in contents.blocks
            for place, stored in enumerate(block["path"].to_pylist())
            if stored in names
        }
        name = next((name for name in names if name in found), None)
        if name is None:
            raise no_such_image(self.address, path)
        return name, found[name]

    def ranked(
        self, origin: Origin, vector: np.ndarray, count: int, limit_to: Filter
    ) -> Iterator[tuple[Hit, np.ndarray]]:
        """See `Index.ranked`; rows of equal score are in the order of the store."""
        contents = self._of(origin)
        query = vector.astype(np.float32)
        scores = [_scores(block, query, limit_to, contents.root) for block in contents.blocks]
        all_scores = np.concatenate(scores or [np.empty(0, np.float32)])
        for row in _best_first(all_scores, count):
            block, place = contents.place(row)
            values = {name: block[name][place].as_py() for name in ("path", "width", "height", "caption")}
            hit = Hit(score=float(all_scores[row]), root=contents.root, **values)
            yield hit, _embeddings(block)[place]

    def _of(self, origin: Origin) -> _Contents:
        """The contents of the file, checked to be made with this model.

        Raises:
            RequestError: there is no file, or it was made with another model.
        """
        if self._contents is None:
            raise RequestError(f"--index {self.address}: no such file; make it with `index`")
        there = self._contents.origin
        if (there.module, there.weights_sha256) != (origin.module, origin.weights_sha256):
            raise RequestError(
                f"{self.address} holds embeddings of {_model(there)}, not of {_model(origin)}: give the "
                "--module and --weights that `embed` used"
            )
        return self._contents

    def _require_same_model(self, origin: Origin) -> None:
        assert self._contents is not None
        if _model(self._contents.origin) != _model(origin):
            raise RequestError(
                f"the index {self.address} holds embeddings of {_model(self._contents.origin)}, not of "
                f"{_model(origin)}: choose another --index, or give --prune_all to remove them"
            )

    # --- the file -------------------------------------------------------------------------------------

    def _state(self) -> tuple[int, ...] | None:
        """Identifies the file, to detect that it was replaced; None if there is no file."""
        try:
            return _state(os.stat(self._path))  # noqa: PTH116
        except FileNotFoundError:
            return None

    def _open(self) -> _Contents | None:
        """Map the file, with all pages at once (MAP_POPULATE), which is much faster than page faults."""
        try:
            status = os.stat(self._path)  # noqa: PTH116
            if not stat.S_ISREG(status.st_mode):
                raise self._is_none("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is not a file")
            with self._path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                if not status.st_size:
                    raise self._is_none("it is empty")
                flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
                mapped = mmap.mmap(stream.fileno(), 0, flags, mmap.PROT_READ)
        except FileNotFoundError:
            if self._must_exist:
                raise RequestError(f"--index {self.address}: no such file; make it with `index`") from None
            return None
        except OSError as error:
            raise RequestError(f"the index {self.address} cannot be opened: {reason_of(error)}") from error
        try:
            reader = pa.ipc.open_file(pa.py_buffer(mapped))
            note = json.loads(reader.schema.metadata[_KEY])
            origin = Origin(**note["origin"])
            if not reader.schema.equals(_schema(origin, note["root"]), check_metadata=True):
                raise ValueError("it has other columns")
            blocks = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            for block in blocks:
                block.validate(full=True)  # reading a damaged block could crash the process
                if any(column.null_count for column in block.columns):
                    raise ValueError("it is incomplete")
            return _Contents(origin, note["root"], blocks, _state(status))
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise self._is_none("it is something else, of another version, or damaged") from error

    def _is_none(self, what: str) -> RequestError:
        return RequestError(
            f"--index {self.address}: not an index of this version; {what} (until 1.1 it was a Milvus "
            "Lite database): index into another file, or remove this one"
        )

    def _rows(self) -> Rows:
        rows: Rows = {}
        if self._contents is not None:
            root = self._contents.root
            for block in self._contents.blocks:
                pairs = zip(block["path"].to_pylist(), block["stamp"].to_pylist(), strict=True)
                rows.update((path, (stamp, root)) for path, stamp in pairs)
        return rows

    def _write(self, store: Store, origin: Origin, root: str) -> int:
        """Rewrite the file; returns the number of rows that were left out."""
        schema = _schema(origin, root)
        there, unusable = self._contents, 0
        try:
            with atomic_file(self._path) as temporary:
                with temporary.open("wb") as stream, pa.ipc.new_file(stream, schema) as writer:
                    for table, left_out in _blocks(store, schema):
                        writer.write_table(table, max_chunksize=_BLOCK)
                        unusable += left_out
                if self._state() != (there and there.state):
                    raise RequestError(
                        f"the index {self.address} was written by another process meanwhile: index again"
                    )
        except (pa.ArrowException, OSError) as error:
            raise RequestError(f"the index {self.address} cannot be written: {reason_of(error)}") from error
        return unusable


def _schema(origin: Origin, root: str) -> pa.Schema:
    """The columns and the metadata of an index file."""
    fields = [
        ("path", pa.string()),
        ("stamp", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("caption", pa.string()),
        ("vector", pa.list_(pa.float32(), origin.embed_dim)),
    ]
    note = {"version": _VERSION, "origin": vars(origin), "root": root}
    return pa.schema(fields, metadata={_KEY: json.dumps(note)})


def _model(origin: Origin) -> str:
    return f"{origin.module} (weights {origin.weights_sha256[:12]})"


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _blocks(store: Store, schema: pa.Schema) -> Iterator[tuple[pa.Table, int]]:
    """The rows of a store in large tables, and how many were left out because they are not finite."""
    from ..embedding.store import vectors_of

    waiting: list[pa.Table] = []
    left_out = 0
    for table in store.tables(schema.names):
        vectors = vectors_of(table)
        usable = np.isfinite(vectors).all(axis=1)
        left_out += int((~usable).sum())
        table = table.filter(pa.array(usable))
        # Without nulls, a search can read the columns' buffers directly.
        empty = {"width": 0, "height": 0, "caption": ""}
        columns = [
            table[name].fill_null(empty[name]) if name in empty else table[name] for name in schema.names[:-1]
        ]
        flat = pa.array(vectors[usable].ravel())
        columns.append(pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
        waiting.append(pa.Table.from_arrays(columns, schema=schema))
        if sum(table.num_rows for table in waiting) >= _BLOCK:
            yield pa.concat_tables(waiting).combine_chunks(), left_out
            waiting, left_out = [], 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks(), left_out


def _embeddings(block: pa.RecordBatch) -> np.ndarray:
    """The embeddings of a block, float32 [rows, embed_dim], without copying."""
    column = block["vector"]
    return _numbers(column.values, np.float32).reshape(block.num_rows, column.type.list_size)


def _numbers(column: pa.Array, dtype: type) -> np.ndarray:
    """A column without nulls as an array, without copying. (Arrow's `to_numpy` imports pandas: 0.5 s.)"""
    return np.frombuffer(column.buffers()[1], dtype)[column.offset : column.offset + len(column)]


def _scores(block: pa.RecordBatch, query: np.ndarray, limit_to: Filter, root: str) -> np.ndarray:
    """The cosine of each row of a block, float32 [rows]; -inf for rows that the filter excludes."""
    # One product per row. BLAS would split a matrix product among threads, which on a busy machine wait for
    # each other ten times as long as this takes; and the score of a row would depend on its neighbours.
    scores = np.matmul(_embeddings(block)[:, None, :], query)[:, 0]
    allowed = np.isfinite(scores) & (scores >= limit_to.min_score)
    for name, least in (("width", limit_to.min_width), ("height", limit_to.min_height)):
        if least:
            allowed &= _numbers(block[name], np.int32) >= least
    if limit_to.path is not None:
        allowed &= np.array(limit_to.allowed_paths(block["path"].to_pylist(), root))
    return np.where(allowed, scores, np.float32(-np.inf))


def _best_first(scores: np.ndarray, count: int) -> Iterator[int]:
    """Row numbers by score, best first, without -inf; ties in order. The first `count` come quickly."""
    rows = np.flatnonzero(scores > -np.inf)
    if count < len(rows):
        worst = np.partition(scores[rows], -count)[-count]
        for some in (scores >= worst, (scores < worst) & (scores > -np.inf)):
            yield from _sorted(scores, np.flatnonzero(some))
    else:
        yield from _sorted(scores, rows)


def _sorted(scores: np.ndarray, rows: np.ndarray) -> Iterator[int]:
    return map(int, rows[np.argsort(-scores[rows], kind="stable")])
