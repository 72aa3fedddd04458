"""Fit a cache of a few images to their classes, without training: Tip-Adapter.

The parameters are chosen by leave-one-out cross-validation: each image is classified by the class names and
all other images. Alpha and beta maximise the accuracy. They may be large, which makes scores overconfident,
so a temperature is then fitted that maximises the likelihood of the right classes (Guo et al. 2017). The
formula is in `zero_shot/cached_labels.py`.
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
"""Maximum size of a cache. With 512-dimensional embeddings it takes 41 MB, and milliseconds per answer."""

PAPER = CacheStrength(alpha=1.0, beta=5.5)
_ALPHAS = (0.0, *(2.0**power for power in range(-3, 11)))
_BETAS = (1.0, 2.0, 4.0, 5.5, 8.0, 11.0, 16.0, 22.0, 32.0, 45.0, 64.0)
_TEMPERATURES = tuple(2.0 ** (half / 2) for half in range(23))
_LEFT_OUT = 2_000  # maximum number of images for leave-one-out


@dataclass(frozen=True)
class FittedCache:
    """The classes with their fitted cache.

    Attributes:
        classes: classes and cache, as stored in the weights file.
        accuracy: leave-one-out accuracy with the cache, 0 to 1; None if no class has two images.
        before: the accuracy on the same images without the cache.
    """

    classes: Classes
    accuracy: float | None
    before: float | None

    @property
    def strength(self) -> CacheStrength:
        """The fitted parameters."""
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
    """Fit a cache to images. Deterministic.

    Args:
        train: the images and their classes.
        features: unit features of the images, float32 [n, d].
        embeddings: embeddings of the classes, float32 [classes, d].
        logit_scale: logit scale of the model.
        alpha: weight of the cache; None chooses it.
        beta: decay of affinities with distance; None chooses it.

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
    """Reduce a data set to the maximum size of a cache, with the same limit for every class.

    Images are chosen by the hash of their file names, so the choice does not change if the folder moves.

    Raises:
        RequestError: there are more classes than images in a cache.
    """
    counts = np.bincount(dataset.targets, minlength=len(dataset.texts))
    if counts.sum() <= MOST_IMAGES:
        return dataset
    if len(counts) > MOST_IMAGES:
        raise RequestError(
            f"{len(counts)} classes are too many: a cache holds at most {MOST_IMAGES} images, and needs one "
            "of each class"
        )
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
    """Leave-one-out classification of the images of a cache whose class has at least two.

    Args:
        cache: the cache of all images.
        embeddings: embeddings of the classes, float32 [classes, d].
        logit_scale: logit scale of the model.
    """

    def __init__(self, cache: ImageCache, embeddings: np.ndarray, logit_scale: float) -> None:
        rows = np.flatnonzero(np.bincount(cache.values)[cache.values] > 1)
        if len(rows) > _LEFT_OUT:
            rows = rows[np.linspace(0, len(rows) - 1, _LEFT_OUT).astype(int)]
        self._features, self._values = cache.keys[rows], cache.values[rows]
        self._labels = CachedLabels(embeddings, cache.by_class(), PAPER)
        self._by_names = label_logits(self._features, embeddings, logit_scale)

    def choose(self, alpha: float | None, beta: float | None) -> CacheStrength:
        """Choose the parameters of best accuracy, and among them the smallest alpha.

        Without images for leave-one-out, the paper's values are used.
        """
        if not len(self._values):
            fixed = {"alpha": alpha, "beta": beta}
            return replace(PAPER, **{name: value for name, value in fixed.items() if value is not None})
        alphas = _ALPHAS if alpha is None else (alpha,)
        betas = _BETAS if beta is None else (beta,)
        accuracy: dict[CacheStrength, float] = {}
        for beta in betas:
            affinities = self._affinities(beta)
            for alpha in alphas:
                logits = self._by_names + alpha * affinities
                accuracy[CacheStrength(alpha, beta)] = self._accuracy_of(logits)
        best = max(accuracy, key=lambda strength: (accuracy[strength], -strength.alpha, -strength.beta))
        return self._with_temperature(best)

    def _with_temperature(self, strength: CacheStrength) -> CacheStrength:
        logits = self._by_names + strength.alpha * self._affinities(strength.beta)
        likeliest = max(_TEMPERATURES, key=lambda temperature: self._likelihood(logits / temperature))
        return replace(strength, temperature=likeliest)

    def accuracy(self, strength: CacheStrength) -> float | None:
        """The accuracy with these parameters, 0 to 1; None without images for leave-one-out."""
        if not len(self._values):
            return None
        return self._accuracy_of(self._by_names + strength.alpha * self._affinities(strength.beta))

    def _affinities(self, beta: float) -> np.ndarray:
        """Affinities to each class [n, classes], without the image's own key, whose affinity is 1."""
        sums = replace(self._labels, strength=CacheStrength(1.0, beta)).affinities(self._features)
        sums[np.arange(len(sums)), self._values] -= 1
        return np.maximum(sums, 0)

    def _accuracy_of(self, logits: np.ndarray) -> float:
        return float((logits.argmax(axis=1) == self._values).mean())

    def _likelihood(self, logits: np.ndarray) -> float:
        """The mean log-likelihood of the right classes."""
        most = logits.max(axis=1)
        log_sums = most + np.log(np.exp(logits - most[:, None]).sum(axis=1))
        return float((logits[np.arange(len(logits)), self._values] - log_sums).mean())
