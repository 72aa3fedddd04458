"""The captions of drawings, and the mean embeddings of their drawings before training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clip_common.zero_shot.scoring import l2_normalize

from .batches import sampling_weight
from .captions import subject_shares
from .features import Features
from .imagenet import Space
from .splits import rows_of


@dataclass(frozen=True)
class Subjects:
    """Captions with the directions of their drawings.

    Attributes:
        names: captions in lower case.
        directions: float32 [N, D], of unit length: the mean of their drawings minus that of all drawings.
        weights: float64 [N], how often training shows each.
    """

    names: list[str]
    directions: np.ndarray
    weights: np.ndarray


def subjects_of(features: Features, space: Space) -> Subjects:
    """The subjects of the training drawings."""
    rows = rows_of(features.captions, "train")
    embeddings = l2_normalize(features.drawings[rows].astype(np.float32) @ space.projection)
    embeddings -= embeddings.mean(axis=0)
    numbers: dict[str, int] = {}
    shown = [
        (numbers.setdefault(subject, len(numbers)), place, share * sampling_weight(features.captions[row]))
        for place, row in enumerate(rows)
        for subject, share in subject_shares(features.captions[row].name, features.captions[row].tags)
    ]
    subject = np.array([number for number, _, _ in shown])
    drawing = np.array([place for _, place, _ in shown])
    weight = np.array([weight for _, _, weight in shown])
    sums = np.zeros((len(numbers), embeddings.shape[1]), np.float32)
    np.add.at(sums, subject, embeddings[drawing] * weight[:, None].astype(np.float32))
    return Subjects(list(numbers), l2_normalize(sums), np.bincount(subject, weight))
