"""Training batches of drawings with captions, nouns and photographs, determined by the seed and the step.

Images are given as pooled features, computed once by `features.py`: the image tower itself is not trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clip_common.errors import TrainingError
from clip_common.text.tokenizer import tokenize
from clip_common.trainer.settings import RunSettings
from clip_common.zero_shot.scoring import l2_normalize, softmax

from .captions import draw_subject
from .data import Caption
from .features import Features
from .imagenet import Space
from .nouns import Nouns
from .splits import rows_of

MAX_TOKENS = 20
PUSHED_SHARE = 0.5  # share of photographs that are moved towards a class


@dataclass(frozen=True)
class Settings(RunSettings):
    """The settings of a run of clip_mini.

    Attributes:
        batch_size: number of drawings in a step.
        nouns: number of nouns in a step.
        photographs: number of crops of photographs in a step.
    """

    steps: int = 500
    batch_size: int = 384
    learning_rate: float = 1e-3
    warm_up: int = 50
    weight_decay: float = 0.02
    average_decay: float = 0.98
    workers: int = 1
    seed: int = 0
    nouns: int = 256
    photographs: int = 64


@dataclass(frozen=True)
class Batch:
    """The data of one step.

    Two drawings with the same subject or the same concept are positives of each other.
    """

    drawings: np.ndarray  # float32 [B, features]
    tokens: np.ndarray  # int64 [B + M, L], captions, then nouns
    subjects: np.ndarray  # int64 [B], equal for captions with the same subject
    concepts: np.ndarray  # int64 [B], equal for drawings of the same concept
    directions: np.ndarray  # float32 [M, D], of the nouns
    closeness: np.ndarray  # float32 [M], the cosine with its direction that a noun should reach
    photographs: np.ndarray  # float32 [K, features]
    classes: np.ndarray  # float32 [K, 1000], the classifier's probabilities


class Batches:
    """The batches of a run. A batch depends only on the seed and the step."""

    def __init__(self, features: Features, nouns: Nouns, space: Space, settings: Settings) -> None:
        self.features, self.nouns, self.space, self.settings = features, nouns, space, settings
        self.captions = features.captions
        self.rows = rows_of(self.captions, "train")
        if len(self.rows) < settings.batch_size:
            raise TrainingError(
                f"{len(self.rows)} training images, fewer than a batch ({settings.batch_size})"
            )
        weights = np.array([sampling_weight(self.captions[row]) for row in self.rows])
        self.shares = weights / weights.sum()
        self.noun_shares = nouns.weights / nouns.weights.sum()

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.settings.seed, step])
        rows = rng.choice(self.rows, self.settings.batch_size, replace=False, p=self.shares)
        captions = [self.captions[row] for row in rows]
        subjects = [draw_subject(caption.name, caption.tags, rng) for caption in captions]
        nouns = rng.choice(len(self.nouns.names), self.settings.nouns, p=self.noun_shares)
        texts = subjects + [self.nouns.names[i] for i in nouns]
        photographs = self._photographs(rng)
        return Batch(
            self.features.draw_drawings(rows, rng),
            tokenize(texts, MAX_TOKENS, truncate=True),
            np.unique(subjects, return_inverse=True)[1],
            np.unique([caption.concept for caption in captions], return_inverse=True)[1],
            self.nouns.directions[nouns],
            self.nouns.closeness[nouns],
            photographs,
            softmax(photographs @ self.space.weight.T + self.space.bias),
        )

    def _photographs(self, rng: np.random.Generator) -> np.ndarray:
        """Crops of photographs. Half of them are moved towards a class: the photographs show few classes."""
        count = self.settings.photographs
        crops = self.features.draw_photographs(count, rng)
        pushed = rng.random(count) < PUSHED_SHARE
        towards = l2_normalize(self.space.weight[rng.integers(len(self.space.weight), size=count)])
        far = rng.uniform(0.3, 1.0, (count, 1)) * np.linalg.norm(crops, axis=1, keepdims=True)
        moved = np.clip(crops * rng.uniform(0.4, 1.0, (count, 1)) + far * towards, 0, 6)  # ReLU6's range
        return np.where(pushed[:, None], moved, crops).astype(np.float32)


def sampling_weight(caption: Caption) -> float:
    """How often training shows an image: flags and the many emoji of persons less often than things."""
    if caption.concept.startswith("flag-"):
        return 0.1 * caption.weight
    if any(
        word in caption.name.split()
        for word in ("man", "woman", "men", "women", "person", "people", "family")
    ):
        return 0.35 * caption.weight
    return caption.weight
