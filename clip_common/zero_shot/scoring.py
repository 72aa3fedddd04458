"""Label scores from embeddings: softmax over scaled cosines (paper section 3.1), or plain cosines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypedDict, get_args

import numpy as np

from ..errors import RequestError
from ..system.log import logger
from .cached_labels import CachedLabels, LabelTargets

ScoreKind = Literal["softmax", "cosine"]
"""The kind of a score: "softmax" compares all labels of a call and adds up to 1; "cosine" depends on the
image and one label only, so several labels or none may apply."""

SCORE_KINDS: tuple[ScoreKind, ...] = get_args(ScoreKind)


class LabelScore(TypedDict):
    """A label and its score: a probability, 0 to 1, or a cosine, -1 to 1."""

    label: str
    score: float


Answer = list[LabelScore]
"""The labels of one image, best first. With thresholds, only those that reach theirs, possibly none."""


class Nearest(TypedDict):
    """The label closest to its threshold, for an image where no label reaches it."""

    label: str
    score: float
    threshold: float


@dataclass(frozen=True)
class Scoring:
    """How labels are scored, and which scores are high enough.

    Attributes:
        kind: "softmax" or "cosine".
        thresholds: minimum score of each label, float64 [labels]; None accepts every score.
    """

    kind: ScoreKind = "softmax"
    thresholds: np.ndarray | None = None


SOFTMAX = Scoring()
"""The default scoring: softmax, no thresholds."""


def shown_score(score: float, kind: ScoreKind) -> str:
    """Format a score: a softmax score in percent, a cosine as a decimal.

    Examples:
        >>> shown_score(0.973, "softmax"), shown_score(0.2714, "cosine")
        ('97.30%', '0.2714')
    """
    return f"{score:.2%}" if kind == "softmax" else f"{score:.4f}"


def check_score_kind(given: object) -> ScoreKind:
    """Validate a kind of score; None means "softmax".

    Raises:
        RequestError: unknown kind.
    """
    if given is None:
        return "softmax"
    for kind in SCORE_KINDS:
        if isinstance(given, str) and given == kind:
            return kind
    raise RequestError(f"scores is {str(given)[:60]!r}, expected {' or '.join(map(repr, SCORE_KINDS))}")


def l2_normalize(features: np.ndarray) -> np.ndarray:
    """Scale features [..., d] to unit length.

    Examples:
        >>> l2_normalize(np.array([3.0, 4.0])).tolist()
        [0.6, 0.8]
    """
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def cosines(features: np.ndarray, targets: LabelTargets) -> np.ndarray:
    """Cosines of image features [n, d] with label embeddings [labels, d], float64 [n, labels].

    With an image cache, the cosine with the nearest cached image of each label. Class vectors from a weights
    file need not have unit length.
    """
    unit = l2_normalize(features)
    if isinstance(targets, CachedLabels):
        return np.clip(targets.nearest(unit), -1, 1)
    lengths = np.sqrt(np.einsum("ld,ld->l", targets, targets))
    return np.clip((unit @ targets.T).astype(np.float64) / lengths, -1, 1)


def label_logits(features: np.ndarray, targets: LabelTargets, logit_scale: float) -> np.ndarray:
    """Logits for image features [n, d], float64 [n, labels]: scaled cosines, plus the term of a cache."""
    unit = l2_normalize(features)
    embeddings = targets.embeddings if isinstance(targets, CachedLabels) else targets
    by_names = logit_scale * (unit @ embeddings.T).astype(np.float64)
    if not isinstance(targets, CachedLabels):
        return by_names
    strength = targets.strength
    return (by_names + strength.alpha * targets.affinities(unit)) / strength.temperature


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over labels, [n, labels] to [n, labels]."""
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def label_scores(
    feature: np.ndarray, targets: LabelTargets, logit_scale: float, kind: ScoreKind = "softmax"
) -> np.ndarray:
    """The score of every label for one image feature [d], float64 [labels]."""
    if kind == "cosine":
        return cosines(feature[None], targets)[0]
    return softmax(label_logits(feature[None], targets, logit_scale))[0]


def top_k_labels(
    feature: np.ndarray,
    targets: LabelTargets,
    logit_scale: float,
    labels: Sequence[str],
    top_k: int,
    scoring: Scoring = SOFTMAX,
) -> Answer:
    """The best labels of an image, best first; with thresholds, only labels that reach theirs.

    Args:
        feature: feature of the image, [d].
        targets: label embeddings, [labels, d], or these with an image cache.
        logit_scale: the factor itself, not its logarithm.
        labels: names of the labels.
        top_k: maximum number of labels.
        scoring: kind of score, and thresholds.

    Examples:
        >>> embeddings = np.eye(2)
        >>> best = top_k_labels(np.array([1.0, 0.0]), embeddings, 100.0, ["a dog", "a cat"], 1)
        >>> best[0]["label"], round(best[0]["score"], 3)
        ('a dog', 1.0)
    """
    scores = label_scores(feature, targets, logit_scale, scoring.kind)
    best = np.argsort(-scores, kind="stable")
    if scoring.thresholds is not None:
        best = best[scores[best] >= scoring.thresholds[best]]
        if len(best) > top_k > 1:
            _warn_of_more(top_k)
    return [{"label": labels[i], "score": float(scores[i])} for i in best[:top_k]]


@cache
def _warn_of_more(top_k: int) -> None:
    logger.warning("more labels reach their thresholds than top_k=%d returns: raise it for all", top_k)


def nearest_label(
    feature: np.ndarray,
    targets: LabelTargets,
    logit_scale: float,
    labels: Sequence[str],
    scoring: Scoring,
) -> Nearest:
    """The label whose score is closest to its threshold, to explain an empty answer.

    Arguments are those of `top_k_labels`; `scoring` must have thresholds.
    """
    assert scoring.thresholds is not None
    scores = label_scores(feature, targets, logit_scale, scoring.kind)
    i = int(np.argmax(scores - scoring.thresholds))
    return {"label": labels[i], "score": float(scores[i]), "threshold": float(scoring.thresholds[i])}
