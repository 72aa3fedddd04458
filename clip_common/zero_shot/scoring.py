"""Scores of labels from embeddings: the softmax over scaled cosines (paper section 3.1), or the cosines."""

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
"""What a score is: "softmax" compares the labels of a call with each other and adds up to 1; "cosine" is of
image and label alone, so that several labels or none may be true."""

SCORE_KINDS: tuple[ScoreKind, ...] = get_args(ScoreKind)


class LabelScore(TypedDict):
    """A label and how well it fits: 0 to 1 over all labels of the call, or as a cosine -1 to 1."""

    label: str
    score: float


Answer = list[LabelScore]
"""An image's best labels, best first. With thresholds, those that reach theirs: empty is "none of these"."""


class Nearest(TypedDict):
    """The label that came nearest to its threshold, of an image where none reaches its own."""

    label: str
    score: float
    threshold: float


@dataclass(frozen=True)
class Scoring:
    """What a score is, and from where a label is true.

    Attributes:
        kind: "softmax" or "cosine".
        thresholds: the score that each label needs, float64 [labels]; None returns labels of any score.
    """

    kind: ScoreKind = "softmax"
    thresholds: np.ndarray | None = None


SOFTMAX = Scoring()
"""What a call is answered with that says nothing about scores."""


def shown_score(score: float, kind: ScoreKind) -> str:
    """A score as people read it: a share in percent, a cosine in digits.

    Examples:
        >>> shown_score(0.973, "softmax"), shown_score(0.2714, "cosine")
        ('97.30%', '0.2714')
    """
    return f"{score:.2%}" if kind == "softmax" else f"{score:.4f}"


def check_score_kind(given: object) -> ScoreKind:
    """A kind of score as given; None is "softmax".

    Raises:
        RequestError: there is no such kind.
    """
    if given is None:
        return "softmax"
    for kind in SCORE_KINDS:
        if isinstance(given, str) and given == kind:
            return kind
    raise RequestError(f"scores is {str(given)[:60]!r}, expected {' or '.join(map(repr, SCORE_KINDS))}")


def l2_normalize(features: np.ndarray) -> np.ndarray:
    """Features [..., d] scaled to length 1.

    Examples:
        >>> l2_normalize(np.array([3.0, 4.0])).tolist()
        [0.6, 0.8]
    """
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def cosines(features: np.ndarray, targets: LabelTargets) -> np.ndarray:
    """Cosines of images' features [n, d] with labels' embeddings [labels, d], float64 [n, labels].

    With a cache, those with the nearest image of each label. The vectors of classes that travel with weights
    need not be of unit length.
    """
    unit = l2_normalize(features)
    if isinstance(targets, CachedLabels):
        return np.clip(targets.nearest(unit), -1, 1)
    lengths = np.sqrt(np.einsum("ld,ld->l", targets, targets))
    return np.clip((unit @ targets.T).astype(np.float64) / lengths, -1, 1)


def label_logits(features: np.ndarray, targets: LabelTargets, logit_scale: float) -> np.ndarray:
    """What the softmax is of, for images' features [n, d], float64 [n, labels].

    Scaled cosines, and what a cache adds to them.
    """
    unit = l2_normalize(features)
    embeddings = targets.embeddings if isinstance(targets, CachedLabels) else targets
    by_names = logit_scale * (unit @ embeddings.T).astype(np.float64)
    if not isinstance(targets, CachedLabels):
        return by_names
    strength = targets.strength
    return (by_names + strength.alpha * targets.affinities(unit)) / strength.temperature


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of labels from their logits, float64 [n, labels]."""
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def label_scores(
    feature: np.ndarray, targets: LabelTargets, logit_scale: float, kind: ScoreKind = "softmax"
) -> np.ndarray:
    """The score of every label for an image's feature [d], float64 [labels]."""
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
    """The best labels of an image; where there are thresholds, the best of those that reach theirs.

    Args:
        feature: the image's, [d].
        targets: the labels' embeddings, [labels, d], alone or with a cache.
        logit_scale: the factor itself, not its logarithm.
        labels: their names.
        top_k: how many to return at most.
        scoring: what a score is, and from where a label is true.

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
    """The label that lacks least to its threshold: why an image is "none of these".

    Args: as of `top_k_labels`; `scoring` has thresholds.
    """
    assert scoring.thresholds is not None
    scores = label_scores(feature, targets, logit_scale, scoring.kind)
    i = int(np.argmax(scores - scoring.thresholds))
    return {"label": labels[i], "score": float(scores[i]), "threshold": float(scoring.thresholds[i])}
