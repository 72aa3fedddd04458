"""Which images are held out: by hashes of names alone, so that anybody gets the same, on any machine.

- "style": a whole drawing style, EmojiOne's; the images of `examples/` are from it.
- "concept": concepts of Noto, which training sees only as other styles draw them.
- "clip-art": clip-art by a hash of its file name; near-duplicates follow the first of their group.
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
CONCEPT_PERCENT = 15  # some 280 concepts that other styles draw too
CLIP_ART_PERCENT = 34  # 300 images must be left among the commonest nouns


def percentile(text: str) -> int:
    """A text's place among a hundred, by its hash."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100


def split_of(caption: Caption) -> Split:
    """The side that an image is on."""
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
