"""Labels with a cache of images of each: Tip-Adapter without training (Zhang et al. 2022, arXiv:2111.03930).

The keys of the cache are the embeddings of a few images, its values their labels. An image's logits are its
scaled cosines with the labels' embeddings, to which is added how near it is to the keys of each label:

    (logit_scale * f W' + alpha * exp(-beta * (1 - f K')) V) / temperature

f is the image's unit embedding, W the labels' embeddings, K the keys and V their labels, one-hot. The paper
has no temperature, that is 1; it changes no order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..weights.class_head import CacheStrength

_IMAGES_AT_ONCE = 256  # whose affinities with a label's keys are in memory together


@dataclass(frozen=True)
class CachedLabels:
    """What images are compared with, where weights answer from a cache.

    Attributes:
        embeddings: of the labels, float32 [labels, d].
        keys: of each label, unit embeddings of its images, float32 [images, d], one at least.
    """

    embeddings: np.ndarray
    keys: tuple[np.ndarray, ...]
    strength: CacheStrength

    def affinities(self, features: np.ndarray) -> np.ndarray:
        """For unit features [n, d], each label's sum of its keys' affinities, float64 [n, labels]."""
        sums = np.empty((len(features), len(self.keys)))
        for rows in _blocks(len(features)):
            for label, keys in enumerate(self.keys):
                cosines = (features[rows] @ keys.T).astype(np.float64)  # rows keys
                sums[rows, label] = np.exp(-self.strength.beta * (1 - cosines)).sum(axis=1)
        return sums

    def nearest(self, features: np.ndarray) -> np.ndarray:
        """For unit features [n, d], the cosine with the nearest key of each label, float64 [n, labels]."""
        best = np.empty((len(features), len(self.keys)))
        for rows in _blocks(len(features)):
            for label, keys in enumerate(self.keys):
                best[rows, label] = (features[rows] @ keys.T).max(axis=1)
        return best


LabelTargets = np.ndarray | CachedLabels
"""What images are compared with: embeddings of labels, [labels, d], alone or with a cache."""


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + _IMAGES_AT_ONCE) for start in range(0, count, _IMAGES_AT_ONCE)]
