"""File names and other texts that not every console, font or file can hold."""

from __future__ import annotations

from pathlib import Path


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""The text with what an encoding cannot hold as Python writes it in a string.

    That is `\udce9` for a byte of a file name that is not UTF-8, `\u7167` for a character that the encoding
    lacks. Nothing is lost, and nothing fails.
    """
    return text.encode(encoding, "backslashreplace").decode(encoding)


def user_path(text: str | Path) -> Path:
    """A path with `~` as in a shell: the home, or as it stands where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for names that no file can have, which `Path.is_file` raises at."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
