"""Fit thresholds: the cosine from which an image has a label, from images whose labels are known.

Each label has its own threshold. Precision and recall are measured on the images that a threshold was fitted
to, which is optimistic, and by 5-fold cross-validation ("held back").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import RequestError
from ..predictor import Predictor
from ..system.file_names import printable
from ..system.words import counted
from ..zero_shot.thresholds import Thresholds
from . import metrics
from .evaluate import Scored

_FEWEST = 5  # minimum numbers of images with and without a label
_PARTS = 5  # folds of the cross-validation
_BELOW = 1e-4  # distance below the lowest score of a threshold that every image reaches


@dataclass(frozen=True)
class Fit:
    """The threshold of a label, and its quality.

    Attributes:
        threshold: minimum cosine.
        positives: number of images with the label.
        average_precision: average precision of the cosines.
        precision: precision on the images that it was fitted to, 0 to 1.
        recall: recall on these images, 0 to 1.
        held_back_precision: precision in cross-validation; None if no image reached a threshold.
        held_back_recall: recall in cross-validation.
    """

    threshold: float
    positives: int
    average_precision: float
    precision: float
    recall: float
    held_back_precision: float | None
    held_back_recall: float


@dataclass(frozen=True)
class Fitted:
    """Fitted thresholds.

    Attributes:
        classes: all labels.
        fits: the thresholds, by label.
        refused: why a label has no threshold, by label.
        cosines: float64 [n, labels].
        truth: which images have which labels, bool [n, labels].
        min_precision: see `fit_thresholds`.
    """

    classes: list[str]
    fits: dict[str, Fit]
    refused: dict[str, str]
    cosines: np.ndarray
    truth: np.ndarray
    min_precision: float | None

    def write(self, predictor: Predictor, scored: Scored, path: Path) -> None:
        """Write the file that `classify --thresholds` reads."""
        about = {
            "fitted_to": "best F1" if self.min_precision is None else f"precision {self.min_precision:g}",
            "images": len(self.truth),
            "without_threshold": self.refused,
        }
        values = {label: fit.threshold for label, fit in self.fits.items()}
        thresholds = Thresholds(
            predictor.record.name, predictor.weights_sha256, scored.prompts.templates, "cosine", values
        )
        thresholds.write(path, about, {label: asdict(fit) for label, fit in self.fits.items()})


def fit_thresholds(
    cosines: np.ndarray, truth: np.ndarray, classes: Sequence[str], min_precision: float | None = None
) -> Fitted:
    """Fit a threshold for each label.

    Args:
        cosines: float64 [n, labels].
        truth: which images have which labels, bool [n, labels].
        classes: the labels.
        min_precision: maximise recall at this precision; None maximises F1.

    Raises:
        RequestError: no threshold can be fitted for any label, or two labels have the same name.
    """
    _require_distinct(classes)
    fits: dict[str, Fit] = {}
    refused: dict[str, str] = {}
    for label, scores, true in zip(classes, cosines.T, truth.T, strict=True):
        fault = _fault(true)
        threshold = None if fault else fit_threshold(scores, true, min_precision)
        if threshold is None:
            refused[label] = fault or f"no threshold gives the precision {min_precision:g} on these images"
        else:
            fits[label] = _fit(scores, true, threshold, min_precision)
    if not fits:
        label, why = next(iter(refused.items()))
        raise RequestError(f"no label can get a threshold; {printable(label)!r}: {why}")
    return Fitted(list(classes), fits, refused, cosines, truth, min_precision)


def _require_distinct(classes: Sequence[str]) -> None:
    twice = next((label for label, count in Counter(classes).items() if count > 1), None)
    if twice is not None:
        raise RequestError(f"two labels are called {twice!r}: thresholds are by label, give them other names")


def fit_threshold(scores: np.ndarray, truth: np.ndarray, min_precision: float | None = None) -> float | None:
    """Fit the threshold of one label.

    It lies midway between two scores; among equally good thresholds, the highest is chosen.

    Args:
        scores: scores of the images, [n].
        truth: which images have the label, bool [n].
        min_precision: maximise recall at this precision; None maximises F1.

    Returns:
        The threshold; None if the precision cannot be reached.
    """
    found, precision, recall = metrics.precision_recall(scores, truth)
    if min_precision is None:
        total = np.maximum(precision + recall, np.finfo(float).tiny)
        goal = 2 * precision * recall / total
    else:
        goal = np.where((precision >= min_precision) & (recall > 0), recall, -1.0)
    best = int(goal.argmax())
    if goal[best] < 0:
        return None
    below = found[best + 1] if best + 1 < len(found) else found[best] - 2 * _BELOW
    return max(float(found[best] + below) / 2, -1.0)


def _fault(truth: np.ndarray) -> str | None:
    """Why there are too few images to fit a threshold; None if there are enough."""
    for count, what in ((int(truth.sum()), "with it"), (int((~truth).sum()), "without it")):
        if count < _FEWEST:
            return f"{counted(count, 'image')} {what}, at least {_FEWEST} are needed"
    return None


def _fit(scores: np.ndarray, truth: np.ndarray, threshold: float, min_precision: float | None) -> Fit:
    precision, recall = _shares(scores >= threshold, truth)
    assert precision is not None  # some image reaches it
    held_back = _held_back(scores, truth, min_precision)
    average = metrics.average_precision(scores, truth)
    return Fit(threshold, int(truth.sum()), average, precision, recall, *_shares(held_back, truth))


def _held_back(scores: np.ndarray, truth: np.ndarray, min_precision: float | None) -> np.ndarray:
    """Which images reach a threshold that was fitted without them, bool [n].

    The parts have their even share of the label's images and of the others.
    """
    parts = np.empty(len(truth), int)
    for value in (True, False):
        places = np.flatnonzero(truth == value)
        parts[places] = np.arange(len(places)) % _PARTS
    reached = np.zeros(len(truth), bool)
    for part in range(_PARTS):
        inside = parts == part
        threshold = fit_threshold(scores[~inside], truth[~inside], min_precision)
        if threshold is not None:
            reached[inside] = scores[inside] >= threshold
    return reached


def _shares(reached: np.ndarray, truth: np.ndarray) -> tuple[float | None, float]:
    """Precision, None where nothing was reached, and recall."""
    right = int((reached & truth).sum())
    return (right / int(reached.sum()) if reached.any() else None), right / int(truth.sum())
