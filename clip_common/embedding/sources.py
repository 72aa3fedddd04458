"""What to embed: images in folders, globs, lists, tables and tar shards, and captions in tables."""

from __future__ import annotations

import glob
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ..errors import RequestError
from ..preprocessing.image import IMAGE_SUFFIXES

_PATH_COLUMNS = ("path", "image", "file", "filename", "filepath")
_CAPTION_COLUMNS = ("caption", "text")


@dataclass(frozen=True)
class Item:
    """One image, or one text.

    Attributes:
        path: what it is called: a file, `shard.tar::member`, or `table.csv#row` for a text.
        stamp: changes when the content does.
        file: where an image's bytes are.
        offset: where in that file they begin, in a tar shard.
        size: how many there are; None is all.
        caption: the text that belongs to it, or that is to be embedded where there is no file.
    """

    path: str
    stamp: str
    file: str | None = None
    offset: int = 0
    size: int | None = None
    caption: str | None = None

    def read(self) -> bytes:
        """An image's bytes."""
        assert self.file is not None
        with Path(self.file).open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(-1 if self.size is None else self.size)


def items_of(sources: Iterable[str]) -> Iterator[Item]:
    """Everything that is named, in order, each path once.

    Args:
        sources: folders, files, globs, `.tar` shards, `.txt` lists of paths, and `.csv`, `.tsv` or `.parquet`
            tables with a column of paths or captions. Paths in a list or table are relative to its folder.

    Raises:
        RequestError: a source is not there, or is of no known kind.
    """
    seen: set[str] = set()
    for source in sources:
        for item in _items_of(source):
            if item.path not in seen:
                seen.add(item.path)
                yield item


def _items_of(source: str) -> Iterator[Item]:
    path = Path(source)
    if path.is_dir():
        yield from _folder(path)
    elif not path.exists():
        matches = sorted(glob.glob(source, recursive=True))
        if not matches:
            raise RequestError(f"{source}: no such file or folder, and no match as a glob")
        for match in matches:
            yield from _items_of(match)
    elif path.suffix == ".tar":
        yield from _shard(path)
    elif path.suffix in (".csv", ".tsv", ".parquet"):
        yield from _table(path)
    elif path.suffix == ".txt":
        for line in path.read_text("utf-8").splitlines():
            if line.strip():
                yield _file(str(path.parent / line.strip()))
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        yield _file(str(path))
    else:
        raise RequestError(
            f"{source}: expected a folder, an image, a glob, a .tar, .csv, .tsv or .parquet, or a .txt list"
        )


def _folder(folder: Path) -> Iterator[Item]:
    for directory, subfolders, files in os.walk(folder):
        subfolders.sort()
        for name in sorted(files):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield _file(os.path.join(directory, name))  # noqa: PTH118 - a Path per image costs time


def _file(path: str, caption: str | None = None) -> Item:
    """An image file; one that is not there is found out when it is read, and costs only itself."""
    try:
        status = os.stat(path)  # noqa: PTH116
        stamp = f"{status.st_size}-{status.st_mtime_ns}"
    except OSError:
        stamp = "missing"
    return Item(path, stamp, path, caption=caption)


def _shard(path: Path) -> Iterator[Item]:
    """The images of a tar file in WebDataset's layout: `key.jpg`, with its caption in `key.txt`."""
    try:
        with tarfile.open(path, "r:") as shard:
            members = [member for member in shard if member.isfile()]
            texts = {member.name: member for member in members if member.name.endswith(".txt")}
            for member in members:
                stem, suffix = os.path.splitext(member.name)  # noqa: PTH122
                if suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                text = texts.get(f"{stem}.txt")
                content = shard.extractfile(text) if text else None
                yield Item(
                    f"{path}::{member.name}",
                    f"{member.size}-{member.mtime}-{member.offset_data}",
                    str(path),
                    member.offset_data,
                    member.size,
                    content.read().decode("utf-8", "replace").strip() if content else None,
                )
    except tarfile.TarError as error:
        raise RequestError(f"{path}: not a whole, uncompressed tar file ({error})") from error


def _table(path: Path) -> Iterator[Item]:
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        else:
            options = pa.csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
            table = pa.csv.read_csv(path, parse_options=options)
    except (pa.ArrowInvalid, OSError) as error:
        raise RequestError(f"{path}: cannot be read as a table ({error})") from error
    paths = next((name for name in _PATH_COLUMNS if name in table.column_names), None)
    captions = next((name for name in _CAPTION_COLUMNS if name in table.column_names), None)
    if paths is None and captions is None:
        raise RequestError(
            f"{path}: has the columns {', '.join(table.column_names)}; one must be called "
            f"{', '.join(_PATH_COLUMNS)} (images) or {', '.join(_CAPTION_COLUMNS)} (texts)"
        )
    texts = table[captions].to_pylist() if captions else [None] * len(table)
    if paths is None:
        for row, text in enumerate(texts):
            yield Item(f"{path}#{row}", f"text-{text}", caption=text)
        return
    for file, text in zip(table[paths].to_pylist(), texts, strict=True):
        yield _file(str(path.parent / str(file)), text)
