"""Linear probe (paper section 3.2): logistic regression on frozen features, with a search for C."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from ..errors import RequestError
from ..system.words import counted

_FIRST = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # of log10 C
_STEPS_PER_DECADE = 8
_MAX_ITERATIONS = 1000
_VALIDATION_SHARE = 0.2
_FEWEST = 4  # images, one of which is held out


@dataclass(frozen=True)
class Probe:
    """A fitted probe, and its C (inverse regularisation strength), the best on the held-out images."""

    classifier: LogisticRegression
    c: float


def fit_probe(features: np.ndarray, targets: np.ndarray, seed: int = 0, intercept: bool = True) -> Probe:
    """Fit a probe. C is found on held-out images, in ever smaller steps around the best (appendix A.3).

    Args:
        features: features of unit length, [n, d].
        targets: class indices, int64 [n].
        seed: seed for the choice of held-out images.
        intercept: whether to fit a bias for each class.

    Raises:
        RequestError: there are too few images or classes.
    """
    if len(np.unique(targets)) < 2 or len(targets) < _FEWEST:
        raise RequestError(
            f"too few for a linear probe: {counted(len(targets), 'image')} of "
            f"{counted(len(np.unique(targets)), 'class', 'classes')}; it needs two classes and "
            f"{_FEWEST} images at least"
        )
    fitted, held_back, its_targets, other_targets = train_test_split(
        features, targets, test_size=_VALIDATION_SHARE, random_state=seed, stratify=_strata(targets)
    )
    if len(np.unique(its_targets)) < 2:
        raise RequestError("too few images for a linear probe: all images left for fitting are of one class")
    accuracy: dict[float, float] = {}

    def try_all(exponents: tuple[float, ...]) -> None:
        for exponent in exponents:
            if exponent not in accuracy and _FIRST[0] <= exponent <= _FIRST[-1]:
                model = _regression(10**exponent, seed, intercept).fit(fitted, its_targets)
                accuracy[exponent] = float(model.score(held_back, other_targets))

    try_all(_FIRST)
    step = 1.0
    while step >= 1 / _STEPS_PER_DECADE:
        best = max(accuracy, key=lambda exponent: (accuracy[exponent], -exponent))
        try_all((best - step, best + step))
        step /= 2
    c = 10 ** max(accuracy, key=lambda exponent: (accuracy[exponent], -exponent))
    return Probe(_regression(c, seed, intercept).fit(features, targets), float(c))


def _regression(c: float, seed: int, intercept: bool) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=_MAX_ITERATIONS, random_state=seed, fit_intercept=intercept)


def _strata(targets: np.ndarray) -> np.ndarray | None:
    """The classes for a stratified split; None if a class has too few images for one."""
    counts = np.unique(targets, return_counts=True)[1]
    enough = counts.min() >= 2 and len(targets) * _VALIDATION_SHARE >= len(counts)
    return targets if enough else None
