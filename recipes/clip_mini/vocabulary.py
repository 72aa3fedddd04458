"""The tokens that captions can have: training holds only their rows of the embedding table.

The rows of all other tokens would get no gradient, and are zero in the exported file.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from clip_common.text.tokenizer import tokenize

from .captions import TEMPLATES, head_noun
from .data import Caption, Dataset
from .splits import rows_of


def tokens_of(captions: Iterable[Caption]) -> np.ndarray:
    """Sorted ids, int64 [V], of all tokens that captions of these images can have, padding included."""
    texts = {
        ending.format(subject)
        for caption in captions
        for subject in (head_noun(caption.name), caption.name.lower(), *map(str.lower, caption.tags))
        for ending in ("{}", "{}.")  # a sign at the end is one token with the stop of a template
    }
    texts |= {
        template.replace("{}", "x").replace("a x", f"{article} x")
        for template in TEMPLATES
        for article in ("a", "an")
    }
    return np.unique(tokenize(sorted(texts), truncate=True))


def training_vocabulary(data: Dataset) -> np.ndarray:
    """The vocabulary of a data set's training images."""
    return tokens_of(data.captions[row] for row in rows_of(data.captions, "train"))


def rows_in(vocabulary: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Token ids as rows of the table that training holds; order, so the end token's rank, is kept.

    Raises:
        ValueError: a token is not in the vocabulary.
    """
    rows = np.searchsorted(vocabulary, tokens).clip(max=len(vocabulary) - 1)
    unknown = tokens[vocabulary[rows] != tokens]
    if unknown.size:
        raise ValueError(f"tokens {sorted(set(unknown.tolist()))[:5]} are not in the training vocabulary")
    return rows


def whole_table(rows: np.ndarray, vocabulary: np.ndarray, vocab_size: int) -> np.ndarray:
    """The embedding table of all tokens, [vocab_size, D], zero but for the vocabulary's rows."""
    table = np.zeros((vocab_size, rows.shape[1]), rows.dtype)
    table[vocabulary] = rows
    return table
