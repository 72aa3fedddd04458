"""Vectors on disk: a folder of numbered Parquet parts, each written whole or not at all.

Columns: `path`, `stamp` (changes when the image does), `width`, `height` (null for texts), `sha256` (of the
file), `caption` (null where there is none) and `vector`, a fixed-size list of unit length. What made them
stands in each part's metadata. What could not be read is in `errors.parquet`: `path`, `stamp` (empty where it
is to be tried again), `error`. Relative paths begin at the folder that stands in the file `root`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import RequestError
from ..system.output import atomic_file, reason_of
from .origin import Origin
from .sources import Item

_PART = re.compile(r"part-(\d{6})\.parquet")
_ERRORS = "errors.parquet"
_ROOT = "root"
_TEMPORARY = re.compile(rf"\.(part-\d{{6}}\.parquet|{re.escape(_ERRORS)}|{_ROOT})\..+")
_KEY = b"clip_hub"
_ERROR_SCHEMA = pa.schema([("path", pa.string()), ("stamp", pa.string()), ("error", pa.string())])
_DTYPES = {"float32": pa.float32(), "float16": pa.float16()}


@dataclass(frozen=True)
class Row:
    """One image or text with its vector, [embed_dim] of unit length."""

    item: Item
    vector: np.ndarray
    width: int | None = None
    height: int | None = None
    sha256: str | None = None


class Store:
    """A folder of parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def parts(self) -> list[Path]:
        """The parts, by number. A file that is being written has another name."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _PART.fullmatch(path.name))

    def next_number(self) -> int:
        """The number of a new part."""
        parts = self.parts()
        return int(_PART.fullmatch(parts[-1].name)[1]) + 1 if parts else 0  # type: ignore[index]

    def origin(self) -> Origin | None:
        """What made the vectors; None where there are none yet.

        Raises:
            RequestError: a part is damaged, or was not written by this program.
        """
        parts = self.parts()
        return _origin(parts[0]) if parts else None

    def require_origin(self) -> Origin:
        """What made the vectors.

        Raises:
            RequestError: there are none, or as of `origin`.
        """
        origin = self.origin()
        if origin is None:
            raise RequestError(f"{self.folder} holds no embeddings: make them with `embed`")
        return origin

    def require(self, origin: Origin) -> None:
        """Check that vectors of this origin may be added.

        Raises:
            RequestError: the folder holds vectors of another one.
        """
        there = self.origin()
        if there and there != origin:
            raise RequestError(
                f"{self.folder} holds vectors of {there}, not of {origin}: choose another --output, or give "
                "the options that it was made with"
            )

    def root(self) -> Path | None:
        """Where relative paths begin; None if that is not known."""
        path = self.folder / _ROOT
        return Path(os.fsdecode(path.read_bytes())) if path.is_file() else None

    def write_root(self, root: Path) -> None:
        """Note where relative paths begin."""
        with _writing(self.folder / _ROOT) as temporary:
            temporary.write_bytes(os.fsencode(root))

    def known(self) -> dict[str, tuple[str, str | None]]:
        """Stamp and the content's sha256 (None for a text) of what has a vector, by path."""
        known: dict[str, tuple[str, str | None]] = {}
        for table in self.tables(["path", "stamp", "sha256"]):
            columns = (table[name].to_pylist() for name in ("path", "stamp", "sha256"))
            known.update((path, (stamp, sha256)) for path, stamp, sha256 in zip(*columns, strict=True))
        return known

    def sweep(self) -> None:
        """Remove what killed writers left; nobody may be writing."""
        for path in self.folder.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def write_part(self, number: int, rows: Sequence[Row], origin: Origin) -> None:
        """Write a part. The same number again replaces it, so a part that is computed twice is there once."""
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
        _write(pa.Table.from_arrays(arrays, schema=schema), self.folder / f"part-{number:06d}.parquet")

    def errors(self) -> dict[str, tuple[str, str]]:
        """Stamp and reason of what could not be read, by path."""
        found: dict[str, tuple[str, str]] = {}
        for path in self._errors_file():
            for row in _read(path).to_pylist():
                found[row["path"]] = (row["stamp"], row["error"])
        return found

    def write_errors(self, errors: dict[str, tuple[str, str]]) -> None:
        """Write all errors there are; none leaves no file."""
        if not errors:
            (self.folder / _ERRORS).unlink(missing_ok=True)
            return
        rows = [{"path": path, "stamp": stamp, "error": error} for path, (stamp, error) in errors.items()]
        _write(pa.Table.from_pylist(rows, schema=_ERROR_SCHEMA), self.folder / _ERRORS)

    def remove(self, paths: set[str]) -> int:
        """Take rows out, by path; parts are rewritten whole, empty ones vanish. Returns the rows removed."""
        removed = 0
        wanted = pa.array(sorted(paths), pa.string())
        for part in self.parts() if paths else ():
            gone = pc.is_in(_read(part, ["path"])["path"], wanted)
            count = pc.sum(gone).as_py() or 0
            if count == len(gone):
                part.unlink()
            elif count:
                _write(_read(part).filter(pc.invert(gone)), part)
            removed += count
        return removed

    def restamp(self, stamps: dict[str, str]) -> None:
        """Write other stamps of some paths, whose content is as it was."""
        for part in self.parts() if stamps else ():
            paths, there = (column.to_pylist() for column in _read(part, ["path", "stamp"]).columns)
            new = [stamps.get(path, stamp) for path, stamp in zip(paths, there, strict=True)]
            if new != there:
                table = _read(part)
                place = table.schema.get_field_index("stamp")
                _write(table.set_column(place, table.schema.field(place), pa.array(new, pa.string())), part)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The parts' contents, one by one."""
        for part in self.parts():
            yield _read(part, columns)

    def _errors_file(self) -> list[Path]:
        path = self.folder / _ERRORS
        return [path] if path.exists() else []


def vectors_of(table: pa.Table) -> np.ndarray:
    """A part's vectors, float32 [n, embed_dim]."""
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


def _origin(part: Path) -> Origin:
    try:
        with part.open("rb") as stream:
            note = pq.read_schema(stream).metadata[_KEY]
        return Origin(**json.loads(note))
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{part}: not a part that `embed` wrote, or damaged ({error})") from error


def _read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        with path.open("rb") as stream:  # Arrow cannot open a path that is not UTF-8
            return pq.ParquetFile(stream).read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise RequestError(f"{path} is damaged, remove it and embed again ({error})") from error


def _write(table: pa.Table, path: Path) -> None:
    with _writing(path) as temporary, temporary.open("wb") as stream:
        pq.write_table(table, stream, compression="zstd")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Path]:
    try:
        with atomic_file(path) as temporary:
            yield temporary
    except (pa.ArrowException, OSError) as error:
        raise RequestError(
            f"{path} cannot be written ({reason_of(error)}); what was written before it is kept"
        ) from error
