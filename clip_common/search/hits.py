"""Results of a search, what they are limited to, and near-duplicates among them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..system.file_names import encodable, escape_name, read_shown_name

_LITERAL = re.compile(r"[^\\%_\"'\x00-\x1f\x7f]")  # what means itself in a pattern, in every Milvus


@dataclass(frozen=True)
class Hit:
    """A result.

    Attributes:
        path: as the store has it.
        score: its cosine with what was asked, -1 to 1.
        root: the folder where `path` begins, if it is relative; see `escape_name`.
        duplicates: paths of the results that were folded into this one.
    """

    path: str
    score: float
    width: int
    height: int
    caption: str
    root: str = ""
    duplicates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Filter:
    """What results are limited to.

    Attributes:
        path: a pattern in which `*` stands for anything, of the path as it is kept or from the top.
        min_width: pixels.
        min_height: pixels.
        min_score: the least cosine.
        without: paths, as they are kept, that are no results.
    """

    path: str | None = None
    min_width: int = 0
    min_height: int = 0
    min_score: float = -np.inf
    without: frozenset[str] = frozenset()

    def expression(self, root: str = "") -> str:
        """The pattern and the sizes as Milvus reads them; it lets through a little more than `allowed_paths`.

        What Milvus's versions escape differently stands for any character here.
        """
        terms = []
        if self.path is not None:
            patterns = as_kept(self.path)
            kept = sorted({*patterns, *(one for pattern in patterns for one in _below(pattern, root))})
            terms.append("(" + " or ".join(f'path like "{_narrow(one)}"' for one in kept) + ")")
        terms += [f"width >= {int(self.min_width)}"] if self.min_width else []
        terms += [f"height >= {int(self.min_height)}"] if self.min_height else []
        return " and ".join(terms)

    def allowed_paths(self, paths: Sequence[str], root: str) -> list[bool]:
        """Which paths, as they are kept or from the top, are like the pattern."""
        if self.path is None:
            return [True] * len(paths)
        patterns = as_kept(self.path)
        absolute = _expression(*patterns).fullmatch
        below = [one for pattern in patterns for one in _below(pattern, root)]
        relative = _expression(*patterns, *below).fullmatch
        return [(absolute if path[:1] == "/" else relative)(path) is not None for path in paths]


def as_kept(path: str) -> list[str]:
    """What a path or a pattern that a user typed may be called where paths are kept, the likeliest first.

    It may be copied from a table, which `shown_name` printed; be a name itself; or be copied from JSON, which
    has paths as they are kept.
    """
    own = path if encodable(path) == path else escape_name(path)
    return list(dict.fromkeys([escape_name(read_shown_name(path)), own]))


def _expression(*patterns: str) -> re.Pattern[str]:
    """What is like one of some patterns."""
    each = [".*".join(map(re.escape, pattern.split("*"))) for pattern in dict.fromkeys(patterns)]
    return re.compile("|".join(each), re.DOTALL)


def _below(pattern: str, root: str) -> list[str]:
    """What is left of a pattern for the paths below a folder, where its beginning is like that folder."""
    if not root:
        return []
    root = root.rstrip("/")  # "/" itself
    return [
        pattern[i + (mark == "/") :]
        for i, mark in enumerate(pattern)
        if (mark == "/" and _expression(pattern[:i]).fullmatch(root))
        or (mark == "*" and _expression(pattern[: i + 1]).fullmatch(f"{root}/"))
    ]


def _narrow(pattern: str) -> str:
    return "".join("%" if mark == "*" else mark if _LITERAL.fullmatch(mark) else "_" for mark in pattern)


def fold(ranked: Iterable[tuple[Hit, np.ndarray]], top_k: int, threshold: float) -> list[Hit]:
    """The best results without near-duplicates, each with what was folded into it.

    A result is folded into the nearest of those before it if their cosine is at least the threshold. The
    walk ends before the first that would be one too many.

    Args:
        ranked: results with their embeddings, best first.
        top_k: how many.
        threshold: a cosine.
    """
    shown: list[Hit] = []
    folded: list[list[str]] = []
    vectors = np.empty((0, 0), np.float32)  # of those shown, and room for more
    for hit, vector in ranked:
        cosines = vectors[: len(shown)] @ vector if shown else np.empty(0)
        if shown and cosines.max() >= threshold:
            folded[int(cosines.argmax())].append(hit.path)
            continue
        if len(shown) == top_k:
            break
        if len(shown) == len(vectors):
            room = np.empty((2 * len(shown) + 16, len(vector)), np.float32)
            room[: len(shown)] = vectors[: len(shown)] if shown else 0
            vectors = room
        vectors[len(shown)] = vector
        shown.append(hit)
        folded.append([])
    return [replace(hit, duplicates=tuple(paths)) for hit, paths in zip(shown, folded, strict=True)]
