"""Results of a search, and what they are limited to."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ..system.file_names import escape_name, printable

_LITERAL = re.compile(r"[^\\%_\"'\x00-\x1f\x7f]")  # what means itself in a pattern, in every Milvus


@dataclass(frozen=True)
class Hit:
    """A result.

    Attributes:
        path: as the store has it.
        score: its cosine with what was asked, -1 to 1.
        root: the folder where `path` begins, if it is relative; see `escape_name`.
    """

    path: str
    score: float
    width: int
    height: int
    caption: str
    root: str = ""


@dataclass(frozen=True)
class Filter:
    """What results are limited to.

    Attributes:
        path: a pattern in which `*` stands for anything, of the path as it is kept or from the top.
        min_width: pixels.
        min_height: pixels.
    """

    path: str | None = None
    min_width: int = 0
    min_height: int = 0

    def expression(self, root: str = "") -> str:
        """As Milvus reads it; it lets through a little more than `allows`.

        What Milvus's versions escape differently stands for any character here.
        """
        terms = []
        if self.path is not None:
            pattern = _as_kept(self.path)
            kept = sorted({pattern, *_below(pattern, root)})
            terms.append("(" + " or ".join(f'path like "{_narrow(one)}"' for one in kept) + ")")
        terms += [f"width >= {int(self.min_width)}"] if self.min_width else []
        terms += [f"height >= {int(self.min_height)}"] if self.min_height else []
        return " and ".join(terms)

    def allows(self, hit: Hit) -> bool:
        """Whether a path, as it is kept or from the top, is like the pattern."""
        paths = (hit.path, os.path.join(hit.root, hit.path))  # noqa: PTH118
        return self.path is None or any(_is_like(path, _as_kept(self.path)) for path in paths)


def _as_kept(pattern: str) -> str:
    """A pattern as paths are kept; one copied from an answer is so already."""
    return pattern if printable(pattern) == pattern else escape_name(pattern)


def _is_like(text: str, pattern: str) -> bool:
    expression = ".*".join(map(re.escape, pattern.split("*")))
    return re.fullmatch(expression, text, re.DOTALL) is not None


def _below(pattern: str, root: str) -> list[str]:
    """What is left of a pattern for the paths below a folder, where its beginning is like that folder."""
    return [
        pattern[i + (mark == "/") :]
        for i, mark in enumerate(pattern)
        if (mark == "/" and _is_like(root, pattern[:i]))
        or (mark == "*" and _is_like(f"{root}/", pattern[: i + 1]))
    ]


def _narrow(pattern: str) -> str:
    return "".join("%" if mark == "*" else mark if _LITERAL.fullmatch(mark) else "_" for mark in pattern)
