"""File names: as typed, in one spelling; and as text that consoles, fonts and files can hold."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_RAW_BYTE = re.compile("[\udc80-\udcff]")  # how Python shows a byte of a name that is not UTF-8
_ESCAPED_BYTE = re.compile(r"\\x[89a-f][0-9a-f]")
# What moves a terminal's cursor, ends a line, or turns the order of what is read: none of it is to be seen.
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CONTROL_IN_LINES = re.compile(f"[{_CONTROLS}]")
_CONTROL = re.compile(f"[\t\n{_CONTROLS}]")


def encodable(text: str, encoding: str = "utf-8") -> str:
    r"""The text with what an encoding cannot hold as Python writes it in a string.

    That is `\udce9` for a byte of a file name that is not UTF-8, `\u7167` for a character that the encoding
    lacks. Nothing is lost, and nothing fails.
    """
    return text.encode(encoding, "backslashreplace").decode(encoding)


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""A name, or whatever else others chose, as a part of a line: `encodable`, and its control characters
    as Python writes them, `\n`, `\x1b` or `\u202e`.
    """
    return _CONTROL.sub(_escaped, encodable(text, encoding))


def printable_lines(text: str, encoding: str = "utf-8") -> str:
    """Several lines made of printable parts: as `printable`, but for ends of lines and tabs."""
    return _CONTROL_IN_LINES.sub(_escaped, encodable(text, encoding))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def escape_name(name: str) -> str:
    r"""A file's name as text that any encoding of Unicode can hold; `unescape_name` gives the name back.

    A byte that is not UTF-8 becomes `\xe9`. Only in such a name, and in one that looks like it, a backslash
    is doubled; all others stay as they are.
    """
    if not _RAW_BYTE.search(name) and not _ESCAPED_BYTE.search(name):
        return name
    return _RAW_BYTE.sub(lambda raw: f"\\x{ord(raw[0]) - 0xDC00:02x}", name.replace("\\", "\\\\"))


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
    """One spelling of a file's path: from `root` if it lies below, else from the top. Links stay."""
    absolute = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps ".."
    prefix = os.path.join(root, "")  # noqa: PTH118
    return absolute[len(prefix) :] if absolute.startswith(prefix) and absolute != prefix else absolute


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for names that no file can have, which `Path.is_file` raises at."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
