"""Few-shot labels from a cache of images: training-free Tip-Adapter (Zhang et al. 2022, arXiv:2111.03930).

The keys of the cache are embeddings of a few images, its values their labels. The logits are the usual scaled
cosines plus the affinity of the image to the keys of each label:

    (logit_scale * f W' + alpha * exp(-beta * (1 - f K')) V) / temperature

f is the unit embedding of the image, W the label embeddings, K the keys, V their one-hot labels. The paper
has no temperature (it is 1 there); it calibrates the softmax and does not change the order of labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..weights.class_head import CacheStrength

_IMAGES_AT_ONCE = 256  # limits the memory for affinities


@dataclass(frozen=True)
class CachedLabels:
    """Label embeddings together with an image cache.

    Attributes:
        embeddings: label embeddings, float32 [labels, d].
        keys: for each label, the unit embeddings of its images, float32 [images, d], at least one.
        strength: the weights of the cache term: alpha, beta, temperature.
    """

    embeddings: np.ndarray
    keys: tuple[np.ndarray, ...]
    strength: CacheStrength

    def affinities(self, features: np.ndarray) -> np.ndarray:
        """Sum of the affinities to each label's keys, for unit features [n, d]: float64 [n, labels]."""
        sums = np.empty((len(features), len(self.keys)))
        for rows in _blocks(len(features)):
            for label, keys in enumerate(self.keys):
                cosines = (features[rows] @ keys.T).astype(np.float64)  # rows keys
                distances = np.maximum(1 - cosines, 0)  # rounding puts cosines above 1
                sums[rows, label] = np.exp(-self.strength.beta * distances).sum(axis=1)
        return sums

    def nearest(self, features: np.ndarray) -> np.ndarray:
        """Cosine with the nearest key of each label, for unit features [n, d]: float64 [n, labels]."""
        best = np.empty((len(features), len(self.keys)))
        for rows in _blocks(len(features)):
            for label, keys in enumerate(self.keys):
                best[rows, label] = (features[rows] @ keys.T).max(axis=1)
        return best


LabelTargets = np.ndarray | CachedLabels
"""What images are compared with: label embeddings, [labels, d], alone or with an image cache."""


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + _IMAGES_AT_ONCE) for start in range(0, count, _IMAGES_AT_ONCE)]
