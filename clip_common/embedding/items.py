"""What there is to embed: what each is called, where its bytes are, and what could not be found."""

from __future__ import annotations

import contextlib
import io
import os
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
from . import parquet_tables

EVERYTHING = os.sep
"""What a fault hides that may hide anything."""

# Bytes of a shard in a bucket that one request reads: many small images lie side by side.
_READ_AHEAD = 1 << 20


@dataclass(frozen=True)
class Item:
    """One image, or one text.

    Attributes:
        path: what it is called: a file from the root of `Items`, `shard.tar::member`, `table.csv#row` for a
            text or an image in a table, or an address without its secrets; see `escape_name`.
        stamp: changes when the content does.
        file: where an image's bytes are: a path, or an address.
        offset: where in that file they begin, in a tar shard.
        size: how many there are; None is all.
        row: of a Parquet file that holds the bytes.
        caption: the text that belongs to it, several as lines; or that is to be embedded where there is no
            file. Empty where a source says that it has none, None where no source says anything.
        fault: why it cannot be read, if that is known.
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
        """Whether its bytes come from another machine."""
        return self.file is not None and is_address(self.file)

    def read(self) -> bytes:
        """An image's bytes.

        Raises:
            OSError: they cannot be read now.
            ImageError: there are none.
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
            raise OSError(f"{self.file} ends within it")
        return content

    def recorded_stamp(self) -> str:
        """The stamp with the caption's, as a store keeps it."""
        return self.stamp if self.caption is None else f"{self.stamp} {digest_of(self.caption)[:16]}"

    def with_caption_of(self, recorded: str) -> str:
        """What `recorded_stamp` is if no source says anything of the caption and it stays as it was."""
        _, mark, caption = recorded.partition(" ")
        return self.recorded_stamp() if self.caption is not None else self.stamp + mark + caption


@dataclass(frozen=True)
class Fault:
    """What could not be looked into.

    Attributes:
        message: what, and why.
        hides: the file or folder that may hold more than was found; None where nothing is hidden.
    """

    message: str
    hides: str | None = None


@dataclass
class Items:
    """What was found, each path once.

    Attributes:
        root: where relative paths begin.
        may_be_empty: whether sources with nothing in them are none of the faults.
        passed_over: what is no image that can be read, counted by suffix or kind.
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
        """What a file is called here."""
        return escape_name(under_root(path, self.root))

    def add(self, item: Item) -> None:
        """Add one; of several with the same path the first counts, and all their captions."""
        there = self.by_path.setdefault(item.path, item)
        if item.caption and there is not item:
            lines = [*(there.caption or "").split("\n"), *item.caption.split("\n")]
            caption = "\n".join(dict.fromkeys(line for line in lines if line))
            self.by_path[item.path] = replace(there, caption=caption)

    def with_root(self, root: Path) -> Items:
        """The same, with paths from another root."""
        if root == self.root:
            return self
        moved = Items(root, self.may_be_empty, faults=self.faults, passed_over=self.passed_over)
        for item in self:
            absolute = from_top(unescape_name(item.path), self.root)
            moved.add(replace(item, path=escape_name(absolute.removeprefix(os.path.join(root, "")))))  # noqa: PTH118
        return moved

    def may_hold(self, path: str) -> bool:
        """Whether a path that was not found may be there nevertheless, in what could not be looked into."""
        absolute = from_top(unescape_name(path), self.root)
        for fault in self.faults:
            if fault.hides == EVERYTHING or (
                fault.hides and absolute.startswith(tuple(fault.hides + end for end in (os.sep, "::", "#")))
            ):
                return True
        return False

    def summary(self) -> str:
        """What was passed over, in words; empty if nothing was."""
        return Seen(self.passed_over).summary()


def read_address(address: str, offset: int = 0, size: int | None = None) -> bytes:
    """An image's bytes, from a bucket or a web server; `offset` and `size` are of one in a bucket's shard."""
    if scheme_of(address) in BUCKETS:  # whoever reads no addresses imports neither
        from . import buckets

        return buckets.read(address, offset, size)
    from . import web

    return web.read(address)


@contextlib.contextmanager
def open_shard(file: str) -> Iterator[IO[bytes]]:
    """A tar shard to read from, a file or an object in a bucket.

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
