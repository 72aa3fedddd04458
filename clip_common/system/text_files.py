"""Read text files from users: lists, tables, labels, classes.

The encoding is UTF-8 (with or without a BOM), UTF-16, or GB18030 (a superset of GBK). Only line feeds and
carriage returns end a line; a list may also be separated by NUL characters (`find -print0`). All values of a
table are text: `001` stays `001`.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..errors import RequestError
from .addresses import is_address
from .log import logger
from .reading import MOST_BYTES, read_whole
from .words import counted

TABLE_SUFFIXES = (".csv", ".tsv")
_MOST = 64 << 20  # bytes, of labels or of thresholds


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        columns: names of the columns, stripped.
        rows: each as long as `columns`.
        lines: the line on which each row begins, from 1.
    """

    path: Path
    columns: list[str]
    rows: list[list[str]]
    lines: list[int]

    def place(self, names: Iterable[str]) -> int | None:
        """Index of the column that matches the first of these names that exists, ignoring case; or None."""
        known = {column.casefold(): i for i, column in reversed(list(enumerate(self.columns)))}
        return next((known[name] for name in names if name in known), None)


def read_bytes(path: Path, most: int = _MOST) -> bytes:
    """Read the bytes of a file.

    Raises:
        RequestError: it cannot be read, is not a regular file, or has more than `most` bytes.
    """
    try:
        return read_whole(path, most)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror or error})") from error


def decode(content: bytes, name: str) -> str:
    """Decode bytes as UTF-8, UTF-16 or GB18030.

    Raises:
        RequestError: the bytes are in none of these encodings.
    """
    encoding = _wide_encoding(content) or "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig" or not _is_chinese(content):
            line = content.count(b"\n", 0, error.start) + 1
            raise RequestError(
                f"{name}, line {line}: neither UTF-8 nor UTF-16 nor GB18030: save it as UTF-8"
            ) from None
    _say_gb18030(name)
    return content.decode("gb18030")


@lru_cache(maxsize=1000)
def _say_gb18030(name: str) -> None:
    """Warn once per file name."""
    logger.warning("%s is not UTF-8: read as GB18030", name)


def _wide_encoding(content: bytes) -> str | None:
    """The codec if the content is UTF-32 or UTF-16: with a BOM, or because every other byte is zero.

    So it is in Latin text. In a list separated by NULs, zeros are fewer, and at even and odd positions.
    """
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"  # its mark begins with that of UTF-16, which would read each letter as two
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    even, odd = content[:1000:2], content[1:1000:2]
    for encoding, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if len(content) >= 4 and zeros.count(0) > 0.6 * len(zeros) and others.count(0) < 0.1 * len(zeros):
            return encoding
    return None


def _is_chinese(content: bytes) -> bool:
    """Whether bytes are GB18030, mostly common characters (GB 2312): Latin-1 is often valid GB18030, too."""
    try:
        content.decode("gb18030")
    except UnicodeDecodeError:
        return False
    pairs = re.findall(rb"[\x81-\xfe][\x30-\xfe]", content)
    common = [pair for pair in pairs if 0xA1 <= pair[0] <= 0xF7 and pair[1] >= 0xA1]
    return len(common) > 0.5 * len(pairs)


def lines_of(text: str) -> list[str]:
    """Split a text at line ends, or at NULs if it has any. Unlike `splitlines`, not at U+2028 and others."""
    if "\0" in text:
        return text.removesuffix("\0").split("\0")
    return re.split("\r\n|\n|\r", re.sub("(\r\n|\n|\r)$", "", text)) if text else []


def read_names(path: Path, what: str) -> list[str]:
    """Read labels or classes: one per line, stripped; empty lines are skipped.

    Args:
        path: the file.
        what: what to call them in error messages: "labels", "classes".

    Raises:
        RequestError: the file cannot be read, or contains none.
    """
    lines = (line.strip() for line in lines_of(decode(read_bytes(path), str(path))))
    names = [line for line in lines if line]
    if not names:
        raise RequestError(f"{path}: has no {what}, expected one per line")
    return names


def read_list(path: Path) -> list[str]:
    """Read paths and addresses, one per line or separated by NULs. Relative paths are returned as they are.

    Each line is decoded by itself: as UTF-8, as a raw file name if such a file exists, or as GB18030. Quotes,
    as file managers add them, and surrounding blanks are removed unless a file of that exact name exists.

    Raises:
        RequestError: the list cannot be read.
    """
    content = read_bytes(path, MOST_BYTES)
    if _wide_encoding(content):
        lines = lines_of(decode(content, str(path)))
    else:
        raw = content.removeprefix(codecs.BOM_UTF8)
        parts = raw.split(b"\0") if b"\0" in raw else re.split(b"\r\n|\n|\r", raw)
        lines = [_name_of(path.parent, part) for part in parts]
    return [_meant(path.parent, line) for line in lines if line.strip()]


def _name_of(folder: Path, raw: bytes) -> str:
    """Decode a file name: as UTF-8, as raw bytes if such a file exists, or as GB18030."""
    as_bytes = os.fsdecode(raw)
    if not any("\udc80" <= mark <= "\udcff" for mark in as_bytes) or _is_there(folder, as_bytes):
        return as_bytes
    return raw.decode("gb18030") if _is_chinese(raw) else as_bytes


def _meant(folder: Path, line: str) -> str:
    bare = line.strip()
    unquoted = bare[1:-1] if len(bare) > 2 and bare[0] == bare[-1] and bare[0] in "\"'" else bare
    if is_address(unquoted):
        return unquoted
    return next((name for name in (line, bare, unquoted) if _is_there(folder, name)), bare)


def _is_there(folder: Path, name: str) -> bool:
    return "\0" not in name and os.path.lexists(folder / name)  # False for a name that is too long


def read_table(path: Path) -> Table:
    """Read a table with a header row: `.csv`, separated by commas (by semicolons or tabs if the first line
    contains no comma), or `.tsv`, separated by tabs.

    If all lines of a `.tsv` have the same number of tabs, each line is a row, whatever quotes it contains.

    Raises:
        RequestError: the table cannot be read, is empty, has a row of another length than the header, or an
            unclosed quote.
    """
    text = decode(read_bytes(path, MOST_BYTES), str(path))
    first = next((line for line in lines_of(text) if line.strip()), "")
    if not first:
        raise RequestError(f"{path}: is empty, expected a first line with the columns' names")
    separator = next((mark for mark in ",;\t" if mark in first), ",")
    if path.suffix.lower() == ".tsv":
        separator = "\t"
    numbered = _plain_rows(text, separator) if separator == "\t" else None
    if numbered is None:
        numbered = _quoted_rows(path, text, separator)
    (_, names), *rest = numbered
    for line, row in rest:
        if len(row) != len(names):
            raise RequestError(
                f"{path}, line {line}: {counted(len(row), 'field')}, and the first line has {len(names)}: "
                f"put a field that has {separator!r} in it between double quotes"
            )
    columns = [name.strip() for name in names]
    return Table(path, columns, [row for _, row in rest], [line for line, _ in rest])


def _plain_rows(text: str, separator: str) -> list[tuple[int, list[str]]] | None:
    """One row per line; None if the rows differ in length, so that quoted fields may span lines."""
    rows = [
        (number, [_unquoted(field) for field in line.split(separator)])
        for number, line in enumerate(lines_of(text), start=1)
        if line.strip()
    ]
    return rows if len({len(row) for _, row in rows}) == 1 else None


def _unquoted(field: str) -> str:
    inside = field[1:-1]
    whole = len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inside.replace('""', "")
    return inside.replace('""', '"') if whole else field


def _quoted_rows(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    blanks = bool(re.match(r"[^\n]*" + re.escape(separator) + " ", text))
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=blanks
    )
    rows: list[tuple[int, list[str]]] = []
    folded: list[int] = []
    begun = 1
    try:
        for row in reader:
            if row and row != [""]:
                rows.append((begun, row))
                folded += [begun] if any("\n" in field or "\r" in field for field in row) else []
            begun = reader.line_num + 1
    except csv.Error as error:
        raise RequestError(
            f"{path}, line {begun}: cannot be read as a table ({error}): a field with a double quote in it "
            "must be in double quotes, with each of its own written twice"
        ) from None
    if folded:
        logger.warning(
            "%s: %s over several lines, the first at line %d; is a double quote missing?",
            path, "1 row runs" if len(folded) == 1 else f"{len(folded)} rows run", folded[0],
        )  # fmt: skip
    return rows


def columns(table: Table, names: Sequence[str]) -> list[list[str]]:
    """The stripped values of required columns, one list per column.

    Raises:
        RequestError: a column is missing, or a value is empty.
    """
    places = [table.place([name]) for name in names]
    if None in places:
        raise RequestError(
            f"{table.path}: has the columns {', '.join(table.columns)}; expected {' and '.join(names)}"
        )
    found = []
    for name, place in zip(names, places, strict=True):
        values = [row[place].strip() for row in table.rows]  # type: ignore[index]
        for line, value in zip(table.lines, values, strict=True):
            if not value:
                raise RequestError(f"{table.path}, line {line}: {name} must not be empty")
        found.append(values)
    return found
