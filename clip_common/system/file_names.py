"""File names: resolving what users type, and escaping names for consoles, figures and files."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import sys
from functools import lru_cache
from pathlib import Path

from .addresses import is_address

_RAW_BYTE = re.compile("[\udc80-\udcff]")  # a surrogate: Python's form of a byte that is not UTF-8
_ESCAPED_BYTE = re.compile(r"\\x[89a-f][0-9a-f]")
# Characters that move the cursor of a terminal, end a line, or change the reading direction.
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CONTROL_IN_LINES = re.compile(f"[{_CONTROLS}]")
_CONTROL = re.compile(f"[\t\n{_CONTROLS}]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_LONG = {code: character for character, code in _SHORT.items()}
_SHOWN = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|([tnr\\]))")


def encodable(text: str, encoding: str = "utf-8") -> str:
    r"""Escape the characters that an encoding cannot represent, as in JSON and Python strings.

    For example `\udce9` for a byte of a file name that is not UTF-8, and `\u7167` for a character that the
    encoding lacks. The result can always be encoded, and no information is lost.
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return _NOT_ASCII.sub(lambda found: _encodable(found[0], encoding), text)
    return text


@lru_cache(maxsize=10_000)
def _encodable(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return _code(character)
    return character


def _code(character: str) -> str:
    r"""The ASCII escape of a character. `\x` is used below U+0080 only: `\xe9` means an undecodable byte."""
    number = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def printable(text: str) -> str:
    r"""Escape untrusted text for one line of output.

    Control characters become `\n`, `\x1b` or `\u202e`, and bytes that are not UTF-8 become `\xe9`.
    """
    return _CONTROL.sub(lambda found: _code(found[0]), encodable(_bytes_shown(text)))


def printable_lines(text: str, encoding: str = "utf-8") -> str:
    """As `printable`, for text of several lines: line ends and tabs are kept."""
    return _CONTROL_IN_LINES.sub(lambda found: _code(found[0]), encodable(_bytes_shown(text), encoding))


def _bytes_shown(text: str) -> str:
    return _RAW_BYTE.sub(lambda raw: f"\\x{ord(raw[0]) - 0xDC00:02x}", text)


def shown_name(name: str) -> str:
    r"""Escape a file name for printing in a table: as `printable`, with backslashes doubled.

    Different names are printed differently, and `read_shown_name` is the inverse, even of output that was
    encoded for a console with few characters.
    """
    return printable(name.replace("\\", "\\\\"))


def read_shown_name(text: str) -> str:
    """The inverse of `shown_name`."""
    return _SHOWN.sub(_read_code, text)


def _read_code(found: re.Match[str]) -> str:
    byte, code, mark = found[1], found[2] or found[3], found[4]
    if byte:
        return chr(int(byte, 16) + (0xDC00 if int(byte, 16) >= 0x80 else 0))
    if code:
        return chr(int(code, 16)) if int(code, 16) <= sys.maxunicode else found[0]
    return _LONG.get(found[0], mark)


def escape_name(name: str) -> str:
    r"""Escape a file name so that it is valid Unicode; `unescape_name` is the inverse.

    A byte that is not UTF-8 becomes `\xe9`. Backslashes are doubled only in such a name, and in a name that
    already looks escaped; all other names are unchanged.
    """
    if not _RAW_BYTE.search(name) and not _ESCAPED_BYTE.search(name):
        return name
    return _bytes_shown(name.replace("\\", "\\\\"))


def unescape_name(text: str) -> str:
    """The inverse of `escape_name`."""
    if not _ESCAPED_BYTE.search(text):
        return text
    return re.sub(
        r"\\(?:x([89a-f][0-9a-f])|(\\))",
        lambda found: found[2] or chr(0xDC00 + int(found[1], 16)),
        text,
    )


def user_path(text: str | Path) -> Path:
    """A path that a user typed: a leading `~/` is the home folder, as in a shell; `~x.png` is a file."""
    if Path(text).parts[:1] == ("~",):
        with contextlib.suppress(RuntimeError):  # a user without a home
            return Path(text).expanduser()
    return Path(text)


def user_pattern(text: str) -> str:
    """`user_path`, as text, of what may be a glob: a slash at its end means folders only, and stays."""
    end = "/" if text.endswith("/") and glob.has_magic(text) else ""
    return f"{user_path(text)}{end}"


def under_root(path: str, root: Path) -> str:
    """Normalise a path: relative to `root` if it lies below, else absolute. Keeps links and addresses."""
    if is_address(path):
        return path
    absolute = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps ".."
    prefix = os.path.join(root, "")  # noqa: PTH118
    return absolute[len(prefix) :] if absolute.startswith(prefix) and absolute != prefix else absolute


def from_top(path: str, root: str | Path) -> str:
    """The absolute path of a path that is relative to `root`; addresses are returned unchanged."""
    return path if is_address(path) else os.path.join(root, path)  # noqa: PTH118


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for names that no file can have, which `Path.is_file` raises at."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
