"""Held-out images, chosen by hashes of names only, so that the splits are the same on every machine.

- "style": a whole drawing style, EmojiOne; the images of `examples/` are from it.
- "concept": concepts in the style of Noto; training sees them only in other styles.
- "clip-art": clip-art by a hash of its file name; near-duplicates are in the split of the first of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from .data import Caption

Split = Literal["train", "style", "concept", "clip-art"]
HELD_OUT_STYLE = "emojione"
CONCEPT_STYLE = "noto"
CONCEPT_PERCENT = 15  # about 280 concepts that other styles have too
CLIP_ART_PERCENT = 34  # enough for 300 images of the most frequent nouns


def percentile(text: str) -> int:
    """A number from 0 to 99 from the hash of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100


def split_of(caption: Caption) -> Split:
    """The split of an image."""
    if caption.style == HELD_OUT_STYLE:
        return "style"
    if caption.style == CONCEPT_STYLE and percentile(caption.concept) < CONCEPT_PERCENT:
        return "concept"
    if caption.style == "clip-art" and percentile(caption.near or caption.concept) < CLIP_ART_PERCENT:
        return "clip-art"
    return "train"


def rows_of(captions: Sequence[Caption], split: Split) -> np.ndarray:
    """Indices of a split's images."""
    return np.array([i for i, caption in enumerate(captions) if split_of(caption) == split], np.int64)
