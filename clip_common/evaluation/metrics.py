"""How right scores are. All arrays are numpy; shares are 0 to 1."""

from __future__ import annotations

import numpy as np


def top_k_accuracy(scores: np.ndarray, targets: np.ndarray, k: int) -> float:
    """Share of rows of scores [n, classes] whose target is among the k best; in a tie the lower index is."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # n k
    return float((best == targets[:, None]).any(axis=1).mean())


def mean_per_class_accuracy(predicted: np.ndarray, targets: np.ndarray) -> float:
    """The mean over the classes that occur of the share of each that is right."""
    right = predicted == targets
    return float(np.mean([right[targets == c].mean() for c in np.unique(targets)]))


def confusion_matrix(predicted: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """Counts, int64 [classes, classes]: rows are what it is, columns what it was taken for."""
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def calibration(probabilities: np.ndarray, targets: np.ndarray, bins: int = 10) -> tuple[np.ndarray, float]:
    """How often the best label is right, by how sure the model was.

    Returns:
        For each bin of confidence [count, mean confidence, accuracy], float64 [bins, 3], zeros where a bin is
        empty; and the expected calibration error (Guo et al. 2017).
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    table = np.zeros((bins, 3))
    for place in range(bins):
        inside = places == place
        if inside.any():
            table[place] = inside.sum(), confidence[inside].mean(), right[inside].mean()
    error = float((table[:, 0] * np.abs(table[:, 1] - table[:, 2])).sum() / len(targets))
    return table, error


def precision_recall(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall of taking for true whatever scores at least as much, for each score that occurs.

    Args:
        scores: of one label, [n].
        truth: bool [n], of which some are true.

    Returns:
        The scores, each once, highest first; the precision and the recall at each.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # equal scores stand or fall together
    right = np.cumsum(truth[order])[last]
    return ranked[last], right / (last + 1), right / truth.sum()


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean of the precision over the recall of one label, [n] each, as scikit-learn has it."""
    _, precision, recall = precision_recall(scores, truth)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def retrieval_recall(similarity: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Share of queries that have something relevant among their k best.

    Args:
        similarity: [queries, items].
        relevant: bool [queries, items].
        k: how many of the best count.
    """
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(relevant, best, axis=1).any(axis=1).mean())
