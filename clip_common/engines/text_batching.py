"""Texts in batches that compute nothing twice and pad to no more than they must.

Attention is causal and the feature is read at the end token. So what follows that token changes nothing; and
what texts begin with, the start token at least and often a template's "a photo of a", has the same states in
all of them, and is computed once for a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ..text.tokenizer import lengths

_WORTH_A_BATCH = 128  # tokens saved that pay for running some texts apart from the others


class TextBatch(NamedTuple):
    """Texts that go through the model together.

    Attributes:
        rows: which texts these are, int64 [n].
        prefix: the tokens that all of them begin with, int64 [B], at least one.
        suffix: what follows in each, int64 [n, L], at least the end token.
    """

    rows: np.ndarray
    prefix: np.ndarray
    suffix: np.ndarray


def in_batches(
    ids: np.ndarray,
    encode: Callable[[np.ndarray, np.ndarray], np.ndarray],
    batch_size: int,
    most_tokens: int | None = None,
) -> np.ndarray:
    """Features [N, D] of texts [N, L], in batches.

    Args:
        ids: see `text_batches`, as the two below.
        encode: the prefix and the suffix of a batch's texts to their features [n, D].
        batch_size: texts in a batch at most.
        most_tokens: tokens in a batch at most.
    """
    batches = list(text_batches(ids, batch_size, most_tokens))
    features = np.concatenate([encode(batch.prefix, batch.suffix) for batch in batches])
    return features[np.argsort(np.concatenate([batch.rows for batch in batches]))]


def text_batches(ids: np.ndarray, batch_size: int, most_tokens: int | None = None) -> Iterator[TextBatch]:
    """Texts in batches of like prefix and like length, each padded to its longest only.

    Args:
        ids: token ids, int64 [N, L], L from two: a start token, and an end token somewhere after it.
        batch_size: texts in a batch at most.
        most_tokens: tokens in a batch at most, padding included, if that is fewer texts.
    """
    length = np.asarray(lengths(ids))
    for rows, shared in _alike(ids, length, np.lexsort(ids.T[::-1]), 0):
        rows = rows[np.argsort(length[rows], kind="stable")]
        start = 0
        while start < len(rows):
            part = rows[start : start + batch_size]
            suffix = length[part] - shared
            if most_tokens is not None:
                size = np.arange(1, len(part) + 1) * suffix  # tokens of the first 1, 2, ... texts
                part = part[: max(1, int((size <= most_tokens - shared).sum()))]
            yield TextBatch(part, ids[part[0], :shared], ids[part, shared : length[part].max()])
            start += len(part)


def _alike(
    ids: np.ndarray, length: np.ndarray, rows: np.ndarray, known: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Groups of texts, and how many tokens all of a group begin with.

    Args:
        rows: texts in the order of their tokens, which share the first `known`.
    """
    shared = _shared(ids, length, rows, known)
    next_token = ids[rows, shared]
    others = []
    for bucket in np.split(rows, np.flatnonzero(np.diff(next_token)) + 1):
        saved = (len(bucket) - 1) * (_shared(ids, length, bucket, shared) - shared)
        if saved >= _WORTH_A_BATCH and len(bucket) < len(rows):
            yield from _alike(ids, length, bucket, shared)
        else:
            others.append(bucket)
    if others:
        left = np.concatenate(others)
        yield left, _shared(ids, length, left, shared)


def _shared(ids: np.ndarray, length: np.ndarray, rows: np.ndarray, known: int) -> int:
    """How many tokens texts in the order of their tokens share, and leave one to each; at least one."""
    if len(rows) == 1:
        return max(1, known)  # nothing is saved by more
    first, last = ids[rows[0]], ids[rows[-1]]
    most = int(length[rows].min()) - 1
    differs = np.flatnonzero(first[known:most] != last[known:most])
    return max(1, known + int(differs[0]) if len(differs) else most)
