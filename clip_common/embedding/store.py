"""Embeddings on disk or in a bucket: a folder of numbered Parquet files (parts), each written atomically.

Columns: `path`, `stamp` (changes when the image does), `width`, `height` (null for texts), `sha256` (of the
file), `caption` (null if there is none) and `vector`, a fixed-size list of unit length. The origin of the
embeddings is in the metadata of each part. Items that could not be read are in `errors.parquet`: `path`,
`stamp` (empty if the next run should try again), `error`. The file `root` contains the folder that relative
paths start from.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import RequestError
from ..system.output import reason_of
from .folders import PART, folder_at, is_index
from .items import Item
from .origin import Origin

_ERRORS = "errors.parquet"
_ROOT = "root"
_TEMPORARY = re.compile(rf"\.(part-\d{{6}}\.parquet|{re.escape(_ERRORS)}|{_ROOT})\..+")
_KEY = b"clip_hub"
_ERROR_SCHEMA = pa.schema([("path", pa.string()), ("stamp", pa.string()), ("error", pa.string())])
_DTYPES = {"float32": pa.float32(), "float16": pa.float16()}


@dataclass(frozen=True)
class Row:
    """One image or text with its embedding, [embed_dim], of unit length."""

    item: Item
    vector: np.ndarray
    width: int | None = None
    height: int | None = None
    sha256: str | None = None


class Store:
    """A folder of parts.

    Attributes:
        folder: its path, or its address in a bucket.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = folder
        self._files = folder_at(folder)

    def held(self) -> AbstractContextManager[None]:
        """Exclude other writers while the context is active.

        Raises:
            RequestError: another process writes to the store, or it is not writable.
        """
        return self._files.held()

    def parts(self) -> list[str]:
        """File names of the parts, by number. A part that is being written has a temporary name."""
        return [name for name in self._names() if PART.fullmatch(name)]

    def next_number(self) -> int:
        """The number of a new part."""
        parts = self.parts()
        return int(PART.fullmatch(parts[-1])[1]) + 1 if parts else 0  # type: ignore[index]

    def origin(self) -> Origin | None:
        """The origin of the embeddings; None if the store is empty.

        Raises:
            RequestError: a part is damaged, or was not written by this program.
        """
        parts = self.parts()
        return self._origin(parts[0]) if parts else None

    def require_origin(self) -> Origin:
        """The origin of the embeddings.

        Raises:
            RequestError: the store is empty, or as for `origin`.
        """
        origin = self.origin()
        if origin is None:
            raise RequestError(self._why_none())
        return origin

    def _why_none(self) -> str:
        """What to do if there are no embeddings; also if something else was given by mistake."""
        place = Path(self.folder)
        if is_index(place):
            return (
                f"{self.folder} is an index, not embeddings: give the folder that it was made from, or "
                f"search it with `clip-hub search WORDS --index {shlex.quote(str(self.folder))}`"
            )
        if PART.fullmatch(place.name) and place.is_file():
            return f"{self.folder} is one part of the embeddings: give its folder, {place.parent}"
        return f"{self.folder} holds no embeddings: make them with `embed`"

    def require(self, origin: Origin) -> None:
        """Check that embeddings of this origin may be added.

        Raises:
            RequestError: the store holds embeddings of another origin.
        """
        there = self.origin()
        if there and there != origin:
            raise RequestError(
                f"{self.folder} holds embeddings of {there}, not of {origin}: choose another --output, or "
                "give the options that it was made with"
            )

    def root(self) -> Path | None:
        """The folder that relative paths start from; None if it is not recorded."""
        if _ROOT not in self._names():
            return None
        with self._opened(_ROOT) as stream:
            return Path(os.fsdecode(stream.read()))

    def write_root(self, root: Path) -> None:
        """Record the folder that relative paths start from."""
        self._write(os.fsencode(root), _ROOT)

    def known(self) -> dict[str, tuple[str, str | None]]:
        """Stamp, and sha256 of the content (None for a text), of each embedded item, by path."""
        known: dict[str, tuple[str, str | None]] = {}
        for table in self.tables(["path", "stamp", "sha256"]):
            columns = (table[name].to_pylist() for name in ("path", "stamp", "sha256"))
            known.update((path, (stamp, sha256)) for path, stamp, sha256 in zip(*columns, strict=True))
        return known

    def sweep(self) -> None:
        """Remove temporary files of killed writers. The caller must hold the store."""
        for name in self._names():
            if _TEMPORARY.fullmatch(name):
                self._remove(name)

    def write_part(self, number: int, rows: Sequence[Row], origin: Origin) -> None:
        """Write a part. It replaces a part of the same number, so computing a part twice does no harm."""
        vectors = np.stack([row.vector for row in rows]).astype(origin.dtype)  # [n, embed_dim]
        flat, schema = pa.array(vectors.ravel(), _DTYPES[origin.dtype]), _schema(origin)
        columns = [
            [row.item.path for row in rows],
            [row.item.recorded_stamp() for row in rows],
            [row.width for row in rows],
            [row.height for row in rows],
            [row.sha256 for row in rows],
            [row.item.caption or None for row in rows],
            pa.FixedSizeListArray.from_arrays(flat, origin.embed_dim),
        ]
        arrays = [
            pa.array(column, field.type) if isinstance(column, list) else column
            for column, field in zip(columns, schema, strict=True)
        ]
        self._write_table(pa.Table.from_arrays(arrays, schema=schema), f"part-{number:06d}.parquet")

    def errors(self) -> dict[str, tuple[str, str]]:
        """Stamp and reason of each item that could not be read, by path."""
        found: dict[str, tuple[str, str]] = {}
        if _ERRORS in self._names():
            for row in self._read(_ERRORS).to_pylist():
                found[row["path"]] = (row["stamp"], row["error"])
        return found

    def write_errors(self, errors: dict[str, tuple[str, str]]) -> None:
        """Replace the recorded errors; removes the file if there are none."""
        if not errors:
            if _ERRORS in self._names():
                self._remove(_ERRORS)
            return
        rows = [{"path": path, "stamp": stamp, "error": error} for path, (stamp, error) in errors.items()]
        self._write_table(pa.Table.from_pylist(rows, schema=_ERROR_SCHEMA), _ERRORS)

    def remove(self, paths: set[str]) -> int:
        """Remove rows by path and return their number. Parts are rewritten; empty parts are removed."""
        removed = 0
        wanted = pa.array(sorted(paths), pa.string())
        for part in self.parts() if paths else ():
            gone = pc.is_in(self._read(part, ["path"])["path"], wanted)
            count = pc.sum(gone).as_py() or 0
            if count == len(gone):
                self._remove(part)
            elif count:
                self._write_table(self._read(part).filter(pc.invert(gone)), part)
            removed += count
        return removed

    def restamp(self, stamps: dict[str, str]) -> None:
        """Replace the stamps of some paths, whose content has not changed."""
        for part in self.parts() if stamps else ():
            paths, there = (column.to_pylist() for column in self._read(part, ["path", "stamp"]).columns)
            new = [stamps.get(path, stamp) for path, stamp in zip(paths, there, strict=True)]
            if new != there:
                table = self._read(part)
                place = table.schema.get_field_index("stamp")
                column = pa.array(new, pa.string())
                self._write_table(table.set_column(place, table.schema.field(place), column), part)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The parts as tables, one by one."""
        for part in self.parts():
            yield self._read(part, columns)

    def _names(self) -> list[str]:
        try:
            return self._files.names()
        except OSError as error:
            raise RequestError(f"{self.folder} cannot be listed ({reason_of(error)})") from error

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        """Open a file for reading.

        Errors of the operating system (with an errno) are reported as such; those of Arrow, which have none,
        mean a damaged file and are left to the caller.
        """
        try:
            with self._files.opened(name) as stream:
                yield stream
        except OSError as error:
            if not error.errno:
                raise
            raise RequestError(f"{self._place(name)} cannot be read ({reason_of(error)})") from error

    def _origin(self, part: str) -> Origin:
        try:
            with self._opened(part) as stream:
                note = pq.read_schema(stream).metadata[_KEY]
            return Origin(**json.loads(note))
        except RequestError:
            raise
        except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
            raise RequestError(
                f"{self._place(part)}: not a part that `embed` wrote, or damaged ({error})"
            ) from error

    def _read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        try:
            with self._opened(name) as stream:
                return pq.ParquetFile(stream).read(columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise RequestError(
                f"{self._place(name)} is damaged, remove it and embed again ({error})"
            ) from error

    def _write_table(self, table: pa.Table, name: str) -> None:
        content = pa.BufferOutputStream()
        pq.write_table(table, content, compression="zstd")
        self._write(content.getvalue(), name)

    def _write(self, content: bytes | pa.Buffer, name: str) -> None:
        try:
            self._files.write(name, content)
        except OSError as error:
            raise RequestError(
                f"{self._place(name)} cannot be written ({reason_of(error)}); what was written before "
                "it is kept"
            ) from error

    def _remove(self, name: str) -> None:
        try:
            self._files.remove(name)
        except OSError as error:
            raise RequestError(f"{self._place(name)} cannot be removed ({reason_of(error)})") from error

    def _place(self, name: str) -> str:
        return f"{self.folder}/{name}"


def vectors_of(table: pa.Table) -> np.ndarray:
    """The embeddings of a part, float32 [n, embed_dim]."""
    column = table["vector"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1).astype(np.float32)


def _schema(origin: Origin) -> pa.Schema:
    """The columns of a part."""
    fields = [
        ("path", pa.string()),
        ("stamp", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
        ("caption", pa.string()),
        ("vector", pa.list_(_DTYPES[origin.dtype], origin.embed_dim)),
    ]
    return pa.schema(fields, metadata={_KEY: json.dumps(vars(origin))})
