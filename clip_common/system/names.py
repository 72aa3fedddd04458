"""File names and other texts that not every console, font or file can hold."""

from __future__ import annotations


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""The text with what an encoding cannot hold as Python writes it in a string.

    That is `\udce9` for a byte of a file name that is not UTF-8, `\u7167` for a character that the encoding
    lacks. Nothing is lost, and nothing fails.
    """
    return text.encode(encoding, "backslashreplace").decode(encoding)
