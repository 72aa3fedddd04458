"""The items to embed: the path and content of each, and the faults of sources that could not be read."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from ..preprocessing.files import Seen
from ..system.addresses import BUCKETS, is_address, scheme_of
from ..system.cache import digest_of
from ..system.file_names import escape_name, from_top, under_root, unescape_name
from ..system.reading import MOST_BYTES, read_whole, require_regular, require_size
from . import parquet_tables, shards

EVERYTHING = os.sep
"""`Fault.hides` of a fault that may hide any item."""

# Bytes that one request reads from a shard in a bucket: enough for many small images at once.
_READ_AHEAD = 1 << 20
_IN_A_SHARD = re.compile(r"(.*?\.tar)::(.*)", re.DOTALL | re.IGNORECASE)  # at an address; keys may hold "::"


@dataclass(frozen=True)
class Item:
    """An image, or a text.

    Attributes:
        path: its unique name: a file path relative to the root of `Items`, `shard.tar::member`,
            `table.csv#row` for a text or an image in a table, or an address without secrets; escaped by
            `escape_name`.
        stamp: changes when the content changes.
        file: path or address of the file with the bytes of an image; None for a text.
        offset: position of the bytes in that file, in a tar shard.
        size: number of bytes; None for the whole file.
        caption: the caption of an image, one per line; or the text to embed, if there is no file. Empty if a
            source says that there is no caption, None if no source says anything.
        row: the row, in a Parquet file that holds the bytes.
        fault: why it cannot be read, if that is already known.
    """

    path: str
    stamp: str
    file: str | None = None
    offset: int = 0
    size: int | None = None
    caption: str | None = None
    row: int | None = None
    fault: str | None = None

    @property
    def is_remote(self) -> bool:
        """Whether the image is read over the network."""
        return self.file is not None and is_address(self.file)

    def read(self) -> bytes:
        """Read the bytes of an image.

        Raises:
            OSError: they cannot be read now.
            ImageError: the source has no image there.
        """
        assert self.file is not None
        if self.is_remote:
            return read_address(self.file, self.offset, self.size)
        if self.row is not None:
            return parquet_tables.image(self.file, self.row)
        if self.size is None:
            return read_whole(self.file)
        require_regular(self.file)
        require_size(self.size, MOST_BYTES, self.path)
        with Path(self.file).open("rb") as stream:
            stream.seek(self.offset)
            content = stream.read(self.size)
        if len(content) < self.size:
            raise OSError(f"{self.file} ends before the image does")
        return content

    def recorded_stamp(self) -> str:
        """The stamp of content and caption, as the store records it."""
        return self.stamp if self.caption is None else f"{self.stamp} {digest_of(self.caption)[:16]}"

    def with_caption_of(self, recorded: str) -> str:
        """`recorded_stamp`, with the caption's part taken from `recorded` if no source says a caption."""
        _, mark, caption = recorded.partition(" ")
        return self.recorded_stamp() if self.caption is not None else self.stamp + mark + caption


@dataclass(frozen=True)
class Fault:
    """A source that could not be read, entirely or in part.

    Attributes:
        message: which source, and why.
        hides: the file or folder that may contain items that were not found; None if nothing is hidden.
    """

    message: str
    hides: str | None = None


@dataclass
class Items:
    """The items of all sources, each path once.

    Attributes:
        root: the folder that relative paths start from.
        may_be_empty: do not count an empty source as a fault.
        by_path: the items, by their paths.
        faults: sources that could not be read.
        passed_over: number of files that are not readable images, by suffix or kind.
    """

    root: Path
    may_be_empty: bool = False
    by_path: dict[str, Item] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.by_path.values())

    def __len__(self) -> int:
        return len(self.by_path)

    def name(self, path: str) -> str:
        """The item path of a file."""
        return escape_name(under_root(path, self.root))

    def add(self, item: Item) -> None:
        """Add an item. For a path that is already there, only the captions are added."""
        there = self.by_path.setdefault(item.path, item)
        if item.caption and there is not item:
            lines = [*(there.caption or "").split("\n"), *item.caption.split("\n")]
            caption = "\n".join(dict.fromkeys(line for line in lines if line))
            self.by_path[item.path] = replace(there, caption=caption)

    def with_root(self, root: Path) -> Items:
        """The same items, with paths relative to another root."""
        if root == self.root:
            return self
        moved = Items(root, self.may_be_empty, faults=self.faults, passed_over=self.passed_over)
        for item in self:
            absolute = from_top(unescape_name(item.path), self.root)
            moved.add(replace(item, path=escape_name(absolute.removeprefix(os.path.join(root, "")))))  # noqa: PTH118
        return moved

    def may_hold(self, path: str) -> bool:
        """Whether a path that was not found may still exist, hidden by a fault."""
        absolute = from_top(unescape_name(path), self.root)
        for fault in self.faults:
            if fault.hides == EVERYTHING or (
                fault.hides and absolute.startswith(tuple(fault.hides + end for end in (os.sep, "::", "#")))
            ):
                return True
        return False

    def summary(self) -> str:
        """Summary of the files that were passed over; empty if there were none."""
        return Seen(self.passed_over).summary()


def read_address(address: str, offset: int = 0, size: int | None = None) -> bytes:
    """Read an image from a bucket or a web server; `offset` and `size` locate one in a shard in a bucket."""
    if scheme_of(address) in BUCKETS:  # both clients are imported only when used
        from . import buckets

        return buckets.read(address, offset, size)
    from . import web

    return web.read(address)


@contextlib.contextmanager
def open_shard(file: str) -> Iterator[IO[bytes]]:
    """Open a tar shard for reading: a file, or an object in a bucket.

    Raises:
        RequestError, OSError: it cannot be opened.
    """
    if not is_address(file):
        with Path(file).open("rb") as stream:
            yield stream
        return
    from . import buckets

    with buckets.opened(file) as reader, io.BufferedReader(reader, _READ_AHEAD) as buffered:
        yield buffered


def content_of(path: str, root: str) -> bytes:
    """Read the bytes of an image by its path in a store.

    Args:
        path: the path, see `Item`.
        root: the folder that a relative path starts from, escaped by `escape_name`.

    Raises:
        OSError, ClipError, KeyError: the image is not there, or cannot be read.
    """
    name = from_top(unescape_name(path), unescape_name(root))
    if is_address(name):
        found = _IN_A_SHARD.fullmatch(name)
        return _shard_member(*found.groups()) if found else read_address(name)
    shard, inside, member = name.partition("::")
    table, row, number = name.rpartition("#")
    if not os.path.lexists(name):
        if inside:
            return _shard_member(shard, member)
        if row and number.isdecimal():
            return parquet_tables.image(table, int(number))
    return read_whole(name)


def _shard_member(shard: str, member: str) -> bytes:
    with open_shard(shard) as stream:
        return shards.member(stream, member)
