"""File names: as typed, in one spelling; and as text that consoles, fonts and files can hold."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from functools import lru_cache
from pathlib import Path

from .addresses import is_address

_RAW_BYTE = re.compile("[\udc80-\udcff]")  # how Python shows a byte of a name that is not UTF-8
_ESCAPED_BYTE = re.compile(r"\\x[89a-f][0-9a-f]")
# What moves a terminal's cursor, ends a line, or turns the order of what is read: none of it is to be seen.
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CONTROL_IN_LINES = re.compile(f"[{_CONTROLS}]")
_CONTROL = re.compile(f"[\t\n{_CONTROLS}]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_LONG = {code: character for character, code in _SHORT.items()}
_SHOWN = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|([tnr\\]))")


def encodable(text: str, encoding: str = "utf-8") -> str:
    r"""The text with what an encoding cannot hold as JSON and Python write it in a string.

    That is `\udce9` for a byte of a file name that is not UTF-8, `\u7167` for a character that the encoding
    lacks. Nothing is lost, and nothing fails.
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
    r"""A character in ASCII. Only below U+0080 it is `\x1b`: `\xe9` is a byte that is no character."""
    number = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""What others chose, as a part of a line: control characters are `\n`, `\x1b` or `\u202e`, a byte of a
    name that is not UTF-8 is `\xe9`, and what an encoding lacks is `\u7167`.
    """
    return _CONTROL.sub(lambda found: _code(found[0]), encodable(_bytes_shown(text), encoding))


def printable_lines(text: str, encoding: str = "utf-8") -> str:
    """Several lines made of printable parts: as `printable`, but for ends of lines and tabs."""
    return _CONTROL_IN_LINES.sub(lambda found: _code(found[0]), encodable(_bytes_shown(text), encoding))


def _bytes_shown(text: str) -> str:
    return _RAW_BYTE.sub(lambda raw: f"\\x{ord(raw[0]) - 0xDC00:02x}", text)


def shown_name(name: str) -> str:
    r"""A file's name as every table prints it: `printable`, and each backslash twice.

    So no two names are printed alike, and `read_shown_name` gives the name back, also as a console printed it
    that lacks some of its characters.
    """
    return printable(name.replace("\\", "\\\\"))


def read_shown_name(text: str) -> str:
    """The name that `shown_name` made this text of."""
    return _SHOWN.sub(_read_code, text)


def _read_code(found: re.Match[str]) -> str:
    byte, code, mark = found[1], found[2] or found[3], found[4]
    if byte:
        return chr(int(byte, 16) + (0xDC00 if int(byte, 16) >= 0x80 else 0))
    if code:
        return chr(int(code, 16)) if int(code, 16) <= sys.maxunicode else found[0]
    return _LONG.get(found[0], mark)


def escape_name(name: str) -> str:
    r"""A file's name as text that any encoding of Unicode can hold; `unescape_name` gives the name back.

    A byte that is not UTF-8 becomes `\xe9`. Only in such a name, and in one that looks like it, a backslash
    is doubled; all others stay as they are.
    """
    if not _RAW_BYTE.search(name) and not _ESCAPED_BYTE.search(name):
        return name
    return _bytes_shown(name.replace("\\", "\\\\"))


def unescape_name(text: str) -> str:
    """The name that `escape_name` made this text of."""
    if not _ESCAPED_BYTE.search(text):
        return text
    return re.sub(
        r"\\(?:x([89a-f][0-9a-f])|(\\))",
        lambda found: found[2] or chr(0xDC00 + int(found[1], 16)),
        text,
    )


def user_path(text: str | Path) -> Path:
    """A path that a user typed: a leading `~/` is the home, as in a shell; `~x.png` is a file."""
    if Path(text).parts[:1] == ("~",):
        with contextlib.suppress(RuntimeError):  # a user without a home
            return Path(text).expanduser()
    return Path(text)


def under_root(path: str, root: Path) -> str:
    """One spelling of a file's path: from `root` if below it, else from the top. Links and addresses stay."""
    if is_address(path):
        return path
    absolute = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps ".."
    prefix = os.path.join(root, "")  # noqa: PTH118
    return absolute[len(prefix) :] if absolute.startswith(prefix) and absolute != prefix else absolute


def from_top(path: str, root: str | Path) -> str:
    """A path, which begins at `root` if it is relative, from the top; an address is there already."""
    return path if is_address(path) else os.path.join(root, path)  # noqa: PTH118


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for names that no file can have, which `Path.is_file` raises at."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
