"""Scores of labels from embeddings: the softmax over scaled cosines (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np


class LabelScore(TypedDict):
    """A label and how well it fits, 0..1 over all labels of the call."""

    label: str
    score: float


Answer = list[LabelScore]
"""An image's best labels, best first."""


def l2_normalize(features: np.ndarray) -> np.ndarray:
    """Features [..., d] scaled to length 1.

    Examples:
        >>> l2_normalize(np.array([3.0, 4.0])).tolist()
        [0.6, 0.8]
    """
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def top_k_labels(
    feature: np.ndarray, label_embeddings: np.ndarray, logit_scale: float, labels: Sequence[str], top_k: int
) -> Answer:
    """The best labels of an image: the softmax of its scaled cosines with all of them.

    Args:
        feature: the image's, [d].
        label_embeddings: of unit length, [labels, d].
        logit_scale: the factor itself, not its logarithm.
        labels: their names.
        top_k: how many to return.

    Examples:
        >>> embeddings = np.eye(2)
        >>> best = top_k_labels(np.array([1.0, 0.0]), embeddings, 100.0, ["a dog", "a cat"], 1)
        >>> best[0]["label"], round(best[0]["score"], 3)
        ('a dog', 1.0)
    """
    logits = logit_scale * (label_embeddings @ l2_normalize(feature)).astype(np.float64)  # [labels]
    scores = np.exp(logits - logits.max())
    scores /= scores.sum()
    best = np.argsort(-scores, kind="stable")[:top_k]
    return [{"label": labels[i], "score": float(scores[i])} for i in best]
