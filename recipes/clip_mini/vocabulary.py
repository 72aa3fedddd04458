"""The tokens that occur in captions: training has only their rows of the embedding table.

Other tokens would get no gradient; their rows are zero in the exported model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from clip_common.text.tokenizer import tokenize

from .captions import TEMPLATES, head_noun, plural
from .data import Caption
from .splits import rows_of


def tokens_of(captions: Iterable[Caption], nouns: Iterable[str] = ()) -> np.ndarray:
    """Sorted ids, int64 [V], of all tokens that can occur in captions of these images and in texts of these
    nouns, including padding."""
    subjects = set(nouns) | {
        subject
        for caption in captions
        for subject in (head_noun(caption.name), caption.name.lower(), *map(str.lower, caption.tags))
    }
    texts = {
        ending.format(form)
        for subject in subjects
        for form in (subject, plural(subject))
        for ending in ("{}", "{}.")  # punctuation at the end forms one token with a template's full stop
    }
    texts |= {template.replace("{}", "x") for template in TEMPLATES}
    return np.unique(tokenize(sorted(texts), truncate=True))


def training_vocabulary(captions: Sequence[Caption], nouns: Sequence[str]) -> np.ndarray:
    """The vocabulary of the training images of a data set, and of nouns."""
    return tokens_of((captions[row] for row in rows_of(captions, "train")), nouns)


def rows_in(vocabulary: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Convert token ids to rows of the training table, of the same shape; their order is kept.

    Raises:
        ValueError: a token is not in the vocabulary.
    """
    rows = np.searchsorted(vocabulary, tokens).clip(max=len(vocabulary) - 1)
    unknown = tokens[vocabulary[rows] != tokens]
    if unknown.size:
        raise ValueError(f"tokens {sorted(set(unknown.tolist()))[:5]} are not in the training vocabulary")
    return rows
