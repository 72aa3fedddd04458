"""Texts in batches that compute nothing twice and pad to no more than they must.

In CLIP's text transformer attention is causal and the feature is read at the end token. So what follows that
token changes nothing; and what texts begin with, the start token at least and often a template's "a photo of
a", has the same states in all of them, and is computed once for a batch. In a BERT every token sees every
other, so nothing is shared; there texts of like length go together and little padding is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ..config import BertConfig, TextConfig
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


def encode_in_batches(
    text: TextConfig | BertConfig,
    ids: np.ndarray,
    encode: Callable[..., np.ndarray],
    batch_size: int,
    most_tokens: int | None = None,
) -> np.ndarray:
    """Features [N, D] of texts [N, L], in the batches that a kind of tower takes.

    Args:
        text: the tower's.
        ids: token ids, see `text_batches` and `padded_batches`, as the two below.
        encode: a batch's texts to their features [n, D]; for a causal tower as their prefix and suffix.
        batch_size: texts in a batch at most.
        most_tokens: tokens in a batch at most.
    """
    if not isinstance(text, BertConfig):
        return in_batches(ids, encode, batch_size, most_tokens)
    batches = list(padded_batches(ids, batch_size, most_tokens))
    return _in_order([rows for rows, _ in batches], [encode(part) for _, part in batches])


def _in_order(rows: list[np.ndarray], features: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(features)[np.argsort(np.concatenate(rows))]


def padded_batches(
    ids: np.ndarray, batch_size: int, most_tokens: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Which texts go together, int64 [n], and their ids, padded with zeros to the longest only, [n, L].

    Args:
        ids: token ids, int64 [N, L]: a start token, others, an end token, then zeros.
        batch_size: texts in a batch at most.
        most_tokens: tokens in a batch at most, padding included, if that is fewer texts.
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
    features = [encode(batch.prefix, batch.suffix) for batch in batches]
    return _in_order([batch.rows for batch in batches], features)


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
