"""The tokens that captions can have: training holds only their rows of the embedding table.

The rows of all other tokens would get no gradient, and are zero in the exported file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from clip_common.text.tokenizer import tokenize

from .captions import TEMPLATES, head_noun, plural
from .data import Caption
from .splits import rows_of


def tokens_of(captions: Iterable[Caption], nouns: Iterable[str] = ()) -> np.ndarray:
    """Sorted ids, int64 [V], of all tokens that captions of these images and texts of these nouns can have,
    padding included."""
    subjects = set(nouns) | {
        subject
        for caption in captions
        for subject in (head_noun(caption.name), caption.name.lower(), *map(str.lower, caption.tags))
    }
    texts = {
        ending.format(form)
        for subject in subjects
        for form in (subject, plural(subject))
        for ending in ("{}", "{}.")  # a sign at the end is one token with the stop of a template
    }
    texts |= {template.replace("{}", "x") for template in TEMPLATES}
    return np.unique(tokenize(sorted(texts), truncate=True))


def training_vocabulary(captions: Sequence[Caption], nouns: Sequence[str]) -> np.ndarray:
    """The vocabulary of a data set's training images, and of nouns."""
    return tokens_of((captions[row] for row in rows_of(captions, "train")), nouns)


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
