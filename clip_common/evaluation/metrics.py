"""Evaluation metrics on numpy arrays. Shares are 0 to 1, targets are indices of classes, int64 [n]."""

from __future__ import annotations

import numpy as np

_BINS = 10


def top_k_accuracy(scores: np.ndarray, targets: np.ndarray, k: int) -> float:
    """Share of rows of scores [n, classes] whose target is among the k best; ties go to the lower index."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # n k
    return float((best == targets[:, None]).any(axis=1).mean())


def mean_per_class_accuracy(predicted: np.ndarray, targets: np.ndarray) -> float:
    """Accuracy of each class that occurs in `targets` [n], averaged over these classes."""
    right = predicted == targets
    return float(np.mean([right[targets == c].mean() for c in np.unique(targets)]))


def confusion_matrix(predicted: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """Counts, int64 [classes, classes]: rows are true classes, columns are predicted ones."""
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def calibration(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, float]:
    """Accuracy of the best label by the model's confidence.

    Args:
        probabilities: [n, classes], 0 to 1.
        targets: class indices, int64 [n].

    Returns:
        Count, mean confidence and accuracy for each of 10 equal intervals of confidence, float64 [10, 3],
        zeros for an empty one; and the expected calibration error (Guo et al. 2017).
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    places = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    table = np.zeros((_BINS, 3))
    for place in range(_BINS):
        inside = places == place
        if inside.any():
            table[place] = inside.sum(), confidence[inside].mean(), right[inside].mean()
    error = float((table[:, 0] * np.abs(table[:, 1] - table[:, 2])).sum() / len(targets))
    return table, error


def precision_recall(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall with each score as the threshold: scores at or above it count as positive.

    Args:
        scores: scores of one label, [n].
        truth: bool [n], at least one of them true.

    Returns:
        The distinct scores, highest first, and the precision and recall at each.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each group of equal scores
    right = np.cumsum(truth[order])[last]
    return ranked[last], right / (last + 1), right / truth.sum()


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision of one label, as in scikit-learn; scores and truth as in `precision_recall`."""
    _, precision, recall = precision_recall(scores, truth)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def retrieval_recall(similarity: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Recall@k: the share of queries with a relevant item among the k most similar.

    Args:
        similarity: [queries, items].
        relevant: bool [queries, items].
        k: number of items to look at.
    """
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(relevant, best, axis=1).any(axis=1).mean())
