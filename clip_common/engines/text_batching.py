"""Batches of texts that share common prefixes and need little padding.

In CLIP's text transformer, attention is causal and the feature is read at the end token. So tokens after it
do not matter, and a common prefix (at least the start token, often a template's "a photo of a") has the same
states in all texts and is computed once per batch. In BERT, every token attends to every other, so nothing
can be shared; there, texts of similar length are batched to reduce padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ..config import BertConfig, TextConfig
from ..text.tokenizer import lengths

_WORTH_A_BATCH = 128  # number of saved tokens from which a separate batch is faster


class PrefixBatch(NamedTuple):
    """A batch of texts that begin alike.

    Attributes:
        rows: indices of the texts, int64 [n].
        prefix: the tokens that all texts begin with, int64 [B], at least one.
        suffix: the tokens that follow in each text, int64 [n, L], at least the end token.
    """

    rows: np.ndarray
    prefix: np.ndarray
    suffix: np.ndarray


def encode_in_batches(
    text: TextConfig | BertConfig,
    ids: np.ndarray,
    encode: Callable[..., np.ndarray],
    batch_size: int,
    most_tokens: int | None = None,
) -> np.ndarray:
    """Encode texts [N, L] to features [N, D], in the batches that suit the text tower.

    Args:
        text: config of the text tower.
        ids: token ids, see `prefix_batches` and `padded_batches`.
        encode: from the texts of a batch to features [n, D]; a causal tower takes prefix and suffix.
        batch_size: maximum number of texts in a batch.
        most_tokens: maximum number of tokens in a batch.
    """
    batches_of: Callable[..., Iterator[tuple[np.ndarray, ...]]] = (
        padded_batches if isinstance(text, BertConfig) else prefix_batches
    )
    rows, features = [], []
    for places, *inputs in batches_of(ids, batch_size, most_tokens):
        rows.append(places)
        features.append(encode(*inputs))
    return np.concatenate(features)[np.argsort(np.concatenate(rows))]


def padded_batches(
    ids: np.ndarray, batch_size: int, most_tokens: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batch texts by length. Yields the indices of the texts, int64 [n], and their ids, zero-padded, [n, L].

    Args:
        ids: token ids, int64 [N, L]: a start token, others, an end token, then zeros.
        batch_size: maximum number of texts in a batch.
        most_tokens: maximum number of tokens in a batch, padding included.
    """
    length = (ids != 0).sum(axis=1)
    rows = np.argsort(length, kind="stable")
    start = 0
    while start < len(rows):
        part = rows[start : start + batch_size]
        if most_tokens is not None:
            size = np.arange(1, len(part) + 1) * length[part]  # tokens of the first 1, 2, ... texts
            part = part[: max(1, int((size <= most_tokens).sum()))]
        yield part, ids[part, : length[part[-1]]]
        start += len(part)


def prefix_batches(ids: np.ndarray, batch_size: int, most_tokens: int | None = None) -> Iterator[PrefixBatch]:
    """Batch texts by common prefix and by length, each batch padded to its longest text.

    Args:
        ids: token ids, int64 [N, L], L at least 2: a start token, and an end token somewhere after it.
        batch_size: maximum number of texts in a batch.
        most_tokens: maximum number of tokens in a batch, padding included.
    """
    length = lengths(ids)
    for rows, shared in _alike(ids, length, np.lexsort(ids.T[::-1]), 0):
        rows = rows[np.argsort(length[rows], kind="stable")]
        start = 0
        while start < len(rows):
            part = rows[start : start + batch_size]
            suffix = length[part] - shared
            if most_tokens is not None:
                size = np.arange(1, len(part) + 1) * suffix  # tokens of the first 1, 2, ... texts
                part = part[: max(1, int((size <= most_tokens - shared).sum()))]
            yield PrefixBatch(part, ids[part[0], :shared], ids[part, shared : length[part].max()])
            start += len(part)


def _alike(
    ids: np.ndarray, length: np.ndarray, rows: np.ndarray, known: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Group texts by common prefix. Yields the texts of a group and the length of their prefix.

    Args:
        ids: token ids of all texts, [N, L].
        length: number of tokens of each text, [N].
        rows: indices of the texts to group, in lexicographic order of their tokens.
        known: length of the prefix that they are known to share.
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
    """Length of the common prefix of sorted texts; at least 1, and leaves at least one token to each."""
    if len(rows) == 1:
        return max(1, known)  # a longer prefix would save nothing
    first, last = ids[rows[0]], ids[rows[-1]]
    most = int(length[rows].min()) - 1
    differs = np.flatnonzero(first[known:most] != last[known:most])
    return max(1, known + int(differs[0]) if len(differs) else most)
