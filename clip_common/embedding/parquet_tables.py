"""Parquet tables of paths, captions, or images themselves (Hugging Face's `{bytes, path}`, or bytes)."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ImageError, RequestError
from ..system.reading import read_whole

PATH_COLUMNS = ("path", "image", "file", "filename", "filepath", "url")
CAPTION_COLUMNS = ("caption", "text")
_LOCK = Lock()


@dataclass(frozen=True)
class ParquetTable:
    """The columns of a table that are used here.

    Attributes:
        columns: names of all columns.
        rows: number of rows.
        paths: paths of images; None if there is no such column, or it contains the images themselves.
        texts: captions; None if there is no such column.
        encoded: whether the image column contains encoded images.
    """

    columns: list[str]
    rows: int
    paths: list[Any] | None
    texts: list[Any] | None
    encoded: bool

    @property
    def has_images(self) -> bool:
        """Whether there is a column of images or of their paths."""
        return self.encoded or self.paths is not None

    @property
    def has_texts(self) -> bool:
        """Whether there is a column of captions."""
        return self.texts is not None

    def values(self) -> Iterator[tuple[str | None, list[str] | None]]:
        """The path and the captions of each row, as text."""
        for row in range(self.rows):
            path = None if self.paths is None or self.paths[row] is None else str(self.paths[row])
            yield path, None if self.texts is None else _captions(self.texts[row])


def _captions(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(caption) for caption in values if caption is not None]


def read(path: Path) -> ParquetTable:
    """Read the paths and captions of a table, but not the images in it.

    Raises:
        RequestError: the table cannot be read.
    """
    try:
        with path.open("rb") as stream:
            file = pq.ParquetFile(stream)
            schema, rows = file.schema_arrow, file.metadata.num_rows
            images, texts = _place(schema, PATH_COLUMNS), _place(schema, CAPTION_COLUMNS)
            encoded = images is not None and _holds_images(schema.field(images).type)
            wanted = [name for name in (None if encoded else images, texts) if name is not None]
            table = file.read(columns=wanted)
    except (pa.ArrowException, OSError) as error:
        raise RequestError(f"{path}: cannot be read as a table ({error})") from error
    return ParquetTable(
        schema.names,
        rows,
        table[images].to_pylist() if images is not None and not encoded else None,
        table[texts].to_pylist() if texts is not None else None,
        encoded,
    )


def _place(schema: pa.Schema, names: Sequence[str]) -> str | None:
    known = {name.strip().casefold(): name for name in reversed(schema.names)}
    return next((known[name] for name in names if name in known), None)


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def image(file: str, row: int) -> bytes:
    """Read the bytes of the image in a row.

    Raises:
        OSError: the file cannot be read now.
        ImageError: the row has no image.
    """
    with _LOCK:  # threads ask for neighbouring rows: the first one reads their row group for all
        first, values = _group(file, os.stat(file).st_mtime_ns, row)  # noqa: PTH116
    value = values[row - first]
    if isinstance(value, dict):
        path = value.get("path")
        if value["bytes"] is None and path:
            return read_whole(Path(file).parent / path)
        value = value["bytes"]
    if value is None:
        raise ImageError(f"{file}#{row}: the row has no image")
    return value


def _group(file: str, changed: int, row: int) -> tuple[int, list[Any]]:
    """The row group that contains a row: the number of its first row, and its images."""
    name, ends = _layout(file, changed)
    number = bisect.bisect_right(ends, row)
    if number == len(ends):
        raise ImageError(f"{file}#{row}: this row no longer exists")
    return (ends[number - 1] if number else 0), _images(file, changed, name, number)


@lru_cache(maxsize=64)
def _layout(file: str, _changed: int) -> tuple[str, list[int]]:
    """Name of the image column, and the end (exclusive) of each row group."""
    with Path(file).open("rb") as stream:
        parquet = pq.ParquetFile(stream)
        metadata, schema = parquet.metadata, parquet.schema_arrow
        name = _place(schema, PATH_COLUMNS)
        if name is None or not _holds_images(schema.field(name).type):
            raise ImageError(f"{file}: no longer has images")
        return name, list(accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))


@lru_cache(maxsize=2)
def _images(file: str, _changed: int, name: str, group: int) -> list[Any]:
    with Path(file).open("rb") as stream:
        return pq.ParquetFile(stream).read_row_group(group, columns=[name])[name].to_pylist()
