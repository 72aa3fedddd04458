"""List the items to embed: images in folders, buckets, globs, lists, tables and shards; texts in tables."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..preprocessing.files import (
    Seen,
    first_bytes,
    image_files,
    is_apple_double,
    is_image,
    kind_of,
    matches_of,
)
from ..system.addresses import BUCKETS, WEB, is_address, scheme_of
from ..system.cache import digest_of
from ..system.file_names import escape_name, under_root, user_pattern
from ..system.secrets import hide_secrets, without_secrets
from ..system.text_files import TABLE_SUFFIXES, Table, read_list, read_table
from ..text.prompts import is_blank
from . import parquet_tables, shards
from .folders import bucket_and_key
from .items import EVERYTHING, Fault, Item, Items, open_shard
from .parquet_tables import CAPTION_COLUMNS, PATH_COLUMNS

if TYPE_CHECKING:
    from . import buckets

_AS_NAMED = "address"  # constant stamp of an image at an address: its content is assumed not to change


def items_of(sources: Iterable[str], may_be_empty: bool = False) -> Items:
    """List the items of all sources, in order, each path once.

    A source that is damaged or cannot be listed becomes a fault of the result; the others are still listed.

    Args:
        sources: folders, files, globs, `.tar` shards, `.txt` lists of paths and addresses, and `.csv`, `.tsv`
            or `.parquet` tables with a column of paths, addresses, images or captions. Paths in a list or
            table are relative to its folder. Also addresses: of images, and in a bucket of shards, globs
            and prefixes.
        may_be_empty: an empty source, or an empty result, is not an error.

    Raises:
        RequestError: a source does not exist or is of an unknown kind, or nothing was found.
    """
    items = Items(Path.cwd(), may_be_empty)
    for source in sources:
        if is_address(source):
            _add_address(items, source)
        else:
            _add(items, user_pattern(source) if source else source)
    if not items.by_path and not may_be_empty:
        raise RequestError(items.faults[0].message if items.faults else "nothing to embed: give a source")
    return items


def _add(items: Items, source: str, matched: bool = False) -> None:
    """Add the items of a source. A match of a glob may be of an unknown kind: it is then passed over."""
    try:
        mode = os.stat(source).st_mode  # noqa: PTH116
    except OSError as error:
        if matched:  # a dangling link
            items.add(_file(items, source))
        elif error.errno in (errno.ENOENT, errno.ENOTDIR):
            seen = Seen()
            for match in matches_of(source, seen):
                _add(items, match, matched=True)
            _add_unlisted(items, seen)
            items.passed_over += seen.passed_over
        else:
            raise RequestError(f"{source}: cannot be reached ({error.strerror})") from None
        return
    suffix = Path(source).suffix.lower()
    if stat.S_ISDIR(mode):
        _add_folder(items, source)
    elif not stat.S_ISREG(mode) and matched:
        items.passed_over["pipe or device"] += 1
    elif not stat.S_ISREG(mode):
        raise RequestError(f"{source}: is a pipe or a device, not a file: save it to a file first")
    elif suffix == ".tar":
        _add_shard(items, source)
    elif suffix in (*TABLE_SUFFIXES, ".parquet", ".txt"):
        try:
            _add_table(items, source, suffix)
        except RequestError as error:
            items.faults.append(Fault(str(error), EVERYTHING))
    elif is_image(source, first_bytes(source)):
        items.add(_file(items, source))
    elif matched:
        items.passed_over[kind_of(source)] += 1
    else:
        raise RequestError(
            f"{source}: expected a folder, an image, a glob, a .tar (not compressed), a .csv, .tsv or "
            ".parquet, or a .txt list"
        )


def _add_address(items: Items, source: str) -> None:
    """Add the image at an address of the web, or what an address names in a bucket."""
    shown, scheme = without_secrets(source), scheme_of(source)
    if scheme not in (*BUCKETS, *WEB):
        raise RequestError(
            f"{shown}: addresses begin with s3://, gs:// or https://; a service of another name may answer "
            "as s3://, see docs/buckets.md"
        )
    suffix = Path(shown.partition("?")[0]).suffix.lower()
    if suffix in (".txt", ".parquet", *TABLE_SUFFIXES):
        raise RequestError(f"{shown}: lists and tables are read from files: copy it to this machine")
    if scheme in BUCKETS:
        _add_bucket(items, source)
    elif suffix == ".tar":
        raise RequestError(f"{shown}: shards are read from files and buckets: copy it to one of them")
    else:
        items.add(_named(source))


def _add_bucket(items: Items, source: str) -> None:
    """Add an image or a shard, the images and shards that a glob matches, or the images below a prefix."""
    place, shown = source.rstrip("/"), escape_name(hide_secrets(source))
    try:
        found, are_named = _objects(source)
    except OSError as error:
        items.faults.append(Fault(f"{shown}: cannot be listed ({error.strerror or error})", place))
        return
    before, seen = len(items), Seen()
    for entry in found:
        name = PurePosixPath(entry.address).name
        stamp = f"{entry.size}-{entry.modified}"
        if are_named and name.lower().endswith(".tar"):
            _add_shard(items, entry.address, stamp)
            continue
        if is_apple_double(name) or not is_image(name, None):
            seen.passed_over[kind_of(name)] += 1
            continue
        path = escape_name(entry.address)
        items.add(Item(path, stamp, entry.address, fault=_fault_of(entry.address)))
    if len(items) == before and not items.may_be_empty and not are_named:
        items.faults.append(Fault(_no_images(shown, seen), place))
    items.passed_over += seen.passed_over


def _objects(source: str) -> tuple[list[buckets.Object], bool]:
    """The objects of a source, and whether it names them exactly or by a glob, rather than by a prefix."""
    from . import buckets

    try:
        found = buckets.objects_at(source)
        return found, [entry.address for entry in found] == [source]
    except FileNotFoundError as error:
        if not glob.has_magic(source):
            raise RequestError(f"{source}: {error.strerror}, and nothing below it") from None
    with contextlib.suppress(FileNotFoundError):
        if found := buckets.matches_of(source):
            return found, True
    raise RequestError(f"{source}: there is no such object, and no match as a glob")


def _named(address: str, caption: str | None = None) -> Item:
    """The item for the image at an address."""
    path = escape_name(without_secrets(address))
    return Item(path, _AS_NAMED, address, caption=caption, fault=_fault_of(address))


def _fault_of(address: str) -> str | None:
    """Why an address cannot be read, if its form already tells."""
    if scheme_of(address) in WEB:
        return None
    if scheme_of(address) not in BUCKETS:
        return f"{escape_name(hide_secrets(address))}: addresses begin with s3://, gs:// or https://"
    try:
        bucket_and_key(address)
        return None
    except RequestError as error:
        return str(error)


def _listed(items: Items, folder: Path, name: str, caption: str | None = None) -> Item:
    """The item for a line of a list or a field of a table."""
    return _named(name, caption) if is_address(name) else _file(items, str(folder / name), caption)


def _add_folder(items: Items, folder: str) -> None:
    seen = Seen()
    found = 0
    for found, file in enumerate(image_files(folder, seen), start=1):  # noqa: B007 - also counts
        items.add(_file(items, file))
    _add_unlisted(items, seen)
    if not found and not seen.unlisted and not items.may_be_empty:
        message = _no_images(escape_name(folder), seen)
        items.faults.append(Fault(message, os.path.abspath(folder)))  # noqa: PTH100
    items.passed_over += seen.passed_over


def _add_unlisted(items: Items, seen: Seen) -> None:
    """Add the folders that cannot be listed as faults, which keep the embeddings of what is below them."""
    for unlisted, why in seen.unlisted.items():
        path = os.path.abspath(unlisted)  # noqa: PTH100
        items.faults.append(Fault(f"{escape_name(unlisted)}: cannot be listed ({why})", path))


def _no_images(source: str, seen: Seen) -> str:
    """The message for a folder or prefix without images."""
    passed_over = f"; skipped: {seen.summary()}" if seen.passed_over else ""
    hint = (
        f"; to read shards, give their names: '{source.rstrip('/')}/*.tar'"
        if ".tar" in seen.passed_over
        else ""
    )
    return f"{source}: no images in it that can be read{passed_over}{hint}"


def _file(items: Items, path: str, caption: str | None = None) -> Item:
    """The item for an image file; a missing file becomes a fault of the item."""
    name = items.name(path)
    try:
        stamp, fault = _state(path), None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        name = hide_secrets(name)  # it may be meant as an address
        stamp, fault = "", f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})"
    return Item(name, stamp, os.path.abspath(path), caption=caption, fault=fault)  # noqa: PTH100


def _state(path: str) -> str:
    """A stamp that changes with a file's content: size, mtime and ctime; users cannot set the ctime."""
    status = os.stat(path)  # noqa: PTH116
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def _add_shard(items: Items, source: str, state: str | None = None) -> None:
    """Add the images of a shard.

    Args:
        source: a path, or the address of an object in a bucket.
        state: a stamp that changes with the shard's content; None computes it from the file.
    """
    seen = Seen()
    file = source if is_address(source) else os.path.abspath(source)  # noqa: PTH100
    try:
        state = state or _state(source)
        with open_shard(file) as stream:
            members = shards.members_of(stream, source, seen)
    except (RequestError, OSError) as error:
        reason = (
            str(error) if isinstance(error, RequestError) else f"{source}: cannot be read ({error.strerror})"
        )
        items.faults.append(Fault(reason, file))
        return
    items.passed_over += seen.passed_over
    if not members and not items.may_be_empty:
        items.faults.append(Fault(f"{source}: no images in it that can be read", file))
    for member in members:
        stamp = f"{member.size}-{member.offset}-in-{state}"
        name = escape_name(f"{under_root(source, items.root)}::{member.name}")
        items.add(Item(name, stamp, file, member.offset, member.size, member.caption))


def _add_table(items: Items, source: str, suffix: str) -> None:
    """Add the images and texts of a list or a table."""
    path = Path(source)
    before = len(items)
    if suffix == ".txt":
        for line in read_list(path):
            items.add(_listed(items, path.parent, line))
        rows = 0
    elif suffix == ".parquet":
        rows = _add_parquet(items, path)
    else:
        rows = _add_rows(items, path, read_table(path))
    if not rows and len(items) == before and not items.may_be_empty:
        raise RequestError(f"{source}: has no rows" if suffix != ".txt" else f"{source}: lists nothing")


def _add_rows(items: Items, path: Path, table: Table) -> int:
    place, text = table.place(PATH_COLUMNS), table.place(CAPTION_COLUMNS)
    if place is None and text is None:
        raise _no_columns(path, table.columns)
    for number, (line, row) in enumerate(zip(table.lines, table.rows, strict=True)):
        caption = None if text is None else row[text]
        if place is None:
            _add_text(items, path, number, caption)
        elif row[place].strip():
            items.add(_listed(items, path.parent, row[place].strip(), caption))
        else:
            items.faults.append(Fault(f"{path}, line {line}: no path"))
    return len(table.rows)


def _add_text(items: Items, path: Path, row: int, text: str | None) -> None:
    text = text or ""
    name = f"{items.name(str(path))}#{row}"
    fault = f"{name}: the text is blank" if is_blank(text) else None
    items.add(Item(name, f"text-{digest_of(text)}", caption=text, fault=fault))


def _add_parquet(items: Items, path: Path) -> int:
    table = parquet_tables.read(path)
    if not table.has_texts and not table.has_images:
        raise _no_columns(path, table.columns)
    state = _state(str(path))
    for row, (file, captions) in enumerate(table.values()):
        caption = None if captions is None else "\n".join(captions)
        if table.encoded:
            name = f"{items.name(str(path))}#{row}"
            items.add(Item(name, f"row-{row}-in-{state}", os.path.abspath(path), caption=caption, row=row))  # noqa: PTH100
        elif not table.has_images:
            _add_text(items, path, row, caption)
        elif file:
            items.add(_listed(items, path.parent, file, caption))
        else:
            items.faults.append(Fault(f"{path}, row {row}: no path"))
    return table.rows


def _no_columns(path: Path, columns: list[str]) -> RequestError:
    return RequestError(
        f"{path}: has the columns {', '.join(columns)}; one must be called "
        f"{', '.join(PATH_COLUMNS)} (images) or {', '.join(CAPTION_COLUMNS)} (texts)"
    )
