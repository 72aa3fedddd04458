"""A cache of a few images beside the names of their classes: Tip-Adapter, which trains nothing.

How the cache counts is chosen by leave-one-out: each image is classified by the names and by all other
images. Alpha and beta are those that are most often right. They may be large, and scores too sure: so a
temperature follows that makes the right classes likely (Guo et al. 2017). The formula is in
`zero_shot/cached_labels.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import RequestError
from ..system.cache import digest_of
from ..weights.class_head import CacheStrength, Classes, ImageCache
from ..zero_shot.cached_labels import CachedLabels
from ..zero_shot.scoring import label_logits
from .dataset import Dataset

MOST_IMAGES = 20_000
"""Of a cache: at 512 numbers each they take 41 MB of the file and of memory, and milliseconds an answer."""

PAPER = CacheStrength(alpha=1.0, beta=5.5)
_ALPHAS = (0.0, *(2.0**power for power in range(-3, 11)))
_BETAS = (1.0, 2.0, 4.0, 5.5, 8.0, 11.0, 16.0, 22.0, 32.0, 45.0, 64.0)
_TEMPERATURES = tuple(2.0 ** (half / 2) for half in range(23))
_LEFT_OUT = 2_000  # images at most, each in its turn


@dataclass(frozen=True)
class FittedCache:
    """A cache beside the classes' names.

    Attributes:
        classes: as they go into the weights file.
        accuracy: on images of the cache, each left out in turn, 0 to 1; None where no class has two images.
        before: the same of the names alone.
    """

    classes: Classes
    accuracy: float | None
    before: float | None

    @property
    def strength(self) -> CacheStrength:
        """How the cache counts."""
        assert self.classes.cache is not None
        return self.classes.cache.strength

    def targets(self) -> CachedLabels:
        """What images are compared with."""
        assert self.classes.cache is not None
        return CachedLabels(self.classes.vectors, self.classes.cache.by_class(), self.strength)


def fit_cache(
    train: Dataset,
    features: np.ndarray,
    embeddings: np.ndarray,
    logit_scale: float,
    alpha: float | None = None,
    beta: float | None = None,
) -> FittedCache:
    """Make the cache of some images; the same images give the same cache.

    Args:
        train: the images and their classes.
        features: theirs, of unit length, float32 [n, d].
        embeddings: of the classes, float32 [classes, d].
        logit_scale: the model's.
        alpha: given, or None to choose it.
        beta: given, or None to choose it.

    Raises:
        RequestError: a class has no image.
    """
    counts = np.bincount(train.targets, minlength=len(train.texts))
    if not counts.all():
        empty = train.texts[int(counts.argmin())]
        raise RequestError(f"--head cache needs an image of every class, and none of {empty!r} can be used")
    rows = np.argsort(train.targets, kind="stable")
    cache = ImageCache(features[rows].astype(np.float32), train.targets[rows].astype(np.int32), PAPER)
    left_out = _LeftOut(cache, embeddings, logit_scale)
    strength = left_out.choose(alpha, beta)
    return FittedCache(
        Classes(tuple(train.texts), embeddings, replace(cache, strength=strength)),
        left_out.accuracy(strength),
        left_out.accuracy(CacheStrength(0.0, strength.beta)),
    )


def limited(dataset: Dataset) -> Dataset:
    """As many of a data set's images as a cache holds; of too many, as many of one class as of another.

    They are chosen by the hashes of their names, so that a folder that moved keeps them.

    Raises:
        RequestError: there are more classes than a cache holds images.
    """
    counts = np.bincount(dataset.targets, minlength=len(dataset.texts))
    if counts.sum() <= MOST_IMAGES:
        return dataset
    if len(counts) > MOST_IMAGES:
        raise RequestError(f"{len(counts)} classes: a cache holds {MOST_IMAGES} images, one of each at least")
    most = int(counts.max())
    while np.minimum(counts, most).sum() > MOST_IMAGES:
        most -= 1
    order = np.array([digest_of(Path(name).name) for name, _ in dataset.images])
    chosen = []
    for place in range(len(counts)):
        rows = np.flatnonzero(dataset.targets == place)
        chosen.append(rows[np.argsort(order[rows], kind="stable")[:most]])
    return dataset.part(np.sort(np.concatenate(chosen)))


class _LeftOut:
    """Images of a cache, each classified without itself; only those whose class has others.

    Args:
        cache: of all images.
        embeddings: of the classes.
        logit_scale: the model's.
    """

    def __init__(self, cache: ImageCache, embeddings: np.ndarray, logit_scale: float) -> None:
        rows = np.flatnonzero(np.bincount(cache.values)[cache.values] > 1)
        if len(rows) > _LEFT_OUT:
            rows = rows[np.linspace(0, len(rows) - 1, _LEFT_OUT).astype(int)]
        self._features, self._values = cache.keys[rows], cache.values[rows]
        self._labels = CachedLabels(embeddings, cache.by_class(), PAPER)
        self._by_names = label_logits(self._features, embeddings, logit_scale)

    def choose(self, alpha: float | None, beta: float | None) -> CacheStrength:
        """What is most often right, and of that the least alpha; the paper's where none can be left out."""
        if not len(self._values):
            given = {"alpha": alpha, "beta": beta}
            return replace(PAPER, **{name: value for name, value in given.items() if value is not None})
        alphas = _ALPHAS if alpha is None else (alpha,)
        right: dict[CacheStrength, float] = {}
        for one_beta in _BETAS if beta is None else (beta,):
            affinities = self._affinities(one_beta)
            for one_alpha in alphas:
                strength = CacheStrength(one_alpha, one_beta)
                right[strength] = self._right(self._by_names + one_alpha * affinities)
        return self._with_temperature(max(right, key=lambda one: (right[one], -one.alpha, -one.beta)))

    def _with_temperature(self, strength: CacheStrength) -> CacheStrength:
        logits = self._by_names + strength.alpha * self._affinities(strength.beta)
        likeliest = max(_TEMPERATURES, key=lambda temperature: self._likelihood(logits / temperature))
        return replace(strength, temperature=likeliest)

    def accuracy(self, strength: CacheStrength) -> float | None:
        """The share of right answers, 0 to 1."""
        if not len(self._values):
            return None
        return self._right(self._by_names + strength.alpha * self._affinities(strength.beta))

    def _affinities(self, beta: float) -> np.ndarray:
        """With the keys of each class but the image's own, whose affinity is 1."""
        sums = replace(self._labels, strength=CacheStrength(1.0, beta)).affinities(self._features)
        sums[np.arange(len(sums)), self._values] -= 1
        return np.maximum(sums, 0)

    def _right(self, logits: np.ndarray) -> float:
        return float((logits.argmax(axis=1) == self._values).mean())

    def _likelihood(self, logits: np.ndarray) -> float:
        """The mean logarithm of the right class's score."""
        most = logits.max(axis=1)
        log_sums = most + np.log(np.exp(logits - most[:, None]).sum(axis=1))
        return float((logits[np.arange(len(logits)), self._values] - log_sums).mean())
