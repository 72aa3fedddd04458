"""Fitting thresholds: from which cosine a label is true, learned from images whose labels are known.

Each label gets its own, from its own cosines. Figures on the images that a threshold was fitted to flatter
it; beside them stand those on images held back: each fifth judged by a threshold fitted to the other four.
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

_FEWEST = 5  # images of which a label is true, and of which it is not
_PARTS = 5
_BELOW = 1e-4  # how far a threshold is below the lowest score, where it lets every image through


@dataclass(frozen=True)
class Fit:
    """A label's threshold, and what it gives.

    Attributes:
        positives: images of which the label is true.
        precision: share of the images that reach the threshold of which it is true.
        recall: share of those of which it is true that reach it.
        held_back_precision: the same on images that were held back; None where none reached a threshold.
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
    """What fitting gave.

    Attributes:
        fits: labels with their thresholds.
        refused: labels without, and why.
        cosines: float64 [n, labels]; truth, bool [n, labels]; both in the order of `classes`.
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
        cosines: [n, labels].
        truth: which labels are true of which image, bool [n, labels].
        classes: the labels.
        min_precision: fit for the most recall at this precision; None: for the best F1.

    Raises:
        RequestError: no label can get a threshold, or two labels are called the same.
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
    """The threshold of one label, [n] each, for the best F1, or for the most recall at a precision.

    It stands in the middle between two scores. Of equally good ones the highest is taken. None: the precision
    is not reached.
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
    """Why there are too few images to fit a label's threshold to."""
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
