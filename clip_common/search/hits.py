"""Search results, filters, and folding of near-duplicates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..system.file_names import encodable, escape_name, read_shown_name

_LITERAL = re.compile(r"[^\\%_\"'\x00-\x1f\x7f]")  # needs no escape in a pattern, in any Milvus version


@dataclass(frozen=True)
class Hit:
    """A search result.

    Attributes:
        path: the path of the image in the store.
        score: cosine with the query, -1 to 1.
        root: the folder that a relative `path` starts from, escaped by `escape_name`.
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
    """Conditions that results must meet.

    Attributes:
        path: a pattern for the stored or the absolute path, in which `*` matches anything.
        min_width: in pixels.
        min_height: in pixels.
        min_score: minimum cosine.
        without: stored paths to exclude.
    """

    path: str | None = None
    min_width: int = 0
    min_height: int = 0
    min_score: float = -np.inf
    without: frozenset[str] = frozenset()

    def expression(self, root: str = "") -> str:
        """The Milvus filter expression for path and size. It may match more paths than `allowed_paths`.

        Characters that Milvus versions escape in different ways are replaced by a wildcard.
        """
        terms = []
        if self.path is not None:
            patterns = as_kept(self.path)
            kept = sorted({*patterns, *(part for pattern in patterns for part in _below(pattern, root))})
            terms.append("(" + " or ".join(f'path like "{_narrow(pattern)}"' for pattern in kept) + ")")
        terms += [f"width >= {int(self.min_width)}"] if self.min_width else []
        terms += [f"height >= {int(self.min_height)}"] if self.min_height else []
        return " and ".join(terms)

    def allowed_paths(self, paths: Sequence[str], root: str) -> list[bool]:
        """Which stored or absolute paths match the pattern."""
        if self.path is None:
            return [True] * len(paths)
        patterns = as_kept(self.path)
        absolute = _expression(*patterns).fullmatch
        below = [part for pattern in patterns for part in _below(pattern, root)]
        relative = _expression(*patterns, *below).fullmatch
        return [(absolute if path[:1] == "/" else relative)(path) is not None for path in paths]


def as_kept(path: str) -> list[str]:
    """The possible stored forms of a path or pattern that a user typed, most likely first.

    Users copy paths from a table, as printed by `shown_name`, type a plain file name, or copy from JSON,
    which contains stored paths.
    """
    own = path if encodable(path) == path else escape_name(path)
    return list(dict.fromkeys([escape_name(read_shown_name(path)), own]))


def _expression(*patterns: str) -> re.Pattern[str]:
    """A regular expression that matches any of the patterns."""
    each = [".*".join(map(re.escape, pattern.split("*"))) for pattern in dict.fromkeys(patterns)]
    return re.compile("|".join(each), re.DOTALL)


def _below(pattern: str, root: str) -> list[str]:
    """The rest of a pattern, for paths relative to `root`, wherever its beginning matches `root` itself."""
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
    """The best results without near-duplicates, each with the paths that were folded into it.

    A result is folded into the most similar result before it if their cosine is at least the threshold.
    Iteration stops at the first result beyond `top_k` that is not a duplicate.

    Args:
        ranked: results with their embeddings, float32 [d] of unit length, best first.
        top_k: maximum number of results.
        threshold: a cosine, -1 to 1.
    """
    shown: list[Hit] = []
    folded: list[list[str]] = []
    vectors = np.empty((0, 0), np.float32)  # embeddings of `shown`, with spare rows
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
