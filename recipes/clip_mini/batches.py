"""What a step of training sees: augmented images with captions, drawn from the seed and the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clip_common.config import Preprocessing
from clip_common.errors import TrainingError
from clip_common.preprocessing.image import normalize
from clip_common.text.tokenizer import tokenize
from clip_common.trainer.settings import RunSettings

from .augment import augment
from .captions import draw_subject, may_flip, put_in_template
from .data import Caption, Dataset
from .splits import rows_of

MAX_TOKENS = 20


@dataclass(frozen=True)
class Settings(RunSettings):
    """The settings of a run of clip_mini.

    Attributes:
        small_share: share of the steps, the first ones, that see images of half the size (progressive
            resizing): a quarter of the work, and most of what is to be learned shows there.
        workers: BatchNorm sees a worker's part of a batch, so it is a setting.
    """

    steps: int = 1750
    batch_size: int = 256
    learning_rate: float = 2e-3
    warm_up: int = 100
    weight_decay: float = 0.1
    average_decay: float = 0.995
    workers: int = 2
    seed: int = 0
    small_share: float = 0.8

    def resolution(self, step: int, full: int) -> int:
        """Side of the images that a step sees."""
        return full // 2 if step < self.small_share * self.steps else full


@dataclass(frozen=True)
class Batch:
    """A worker's part of a step's images and texts, and what all of the step's are about.

    Two pairs that share a subject, or a concept, are positives of each other.
    """

    pixels: np.ndarray  # float32 [part, 3, R, R]
    tokens: np.ndarray  # int64 [part, L]
    subjects: np.ndarray  # int64 [batch], equal where the subjects of the captions are
    concepts: np.ndarray  # int64 [batch], equal where the images show the same


class Batches:
    """The batches of a run, each from the seed and its step alone; `worker` gets its part of them."""

    def __init__(self, data: Dataset, settings: Settings, resolution: int, worker: int = 0) -> None:
        self.data, self.settings, self.resolution = data, settings, resolution
        self.rows = rows_of(data.captions, "train")
        if len(self.rows) < settings.batch_size:
            raise TrainingError(
                f"{len(self.rows)} training images, fewer than a batch ({settings.batch_size})"
            )
        if settings.batch_size % settings.workers:
            raise TrainingError(
                f"a batch of {settings.batch_size} cannot be shared among {settings.workers} workers"
            )
        if settings.small_share and resolution % 64:
            raise TrainingError(f"half of {resolution} pixels does not fit the model: set --small-share 0")
        weights = np.array([sampling_weight(data.captions[row]) for row in self.rows])
        self.shares = weights / weights.sum()
        size = settings.batch_size // settings.workers
        self.part = range(worker * size, (worker + 1) * size)

    def __call__(self, step: int) -> Batch:
        """A worker's part of a step."""
        rng = np.random.default_rng([self.settings.seed, step])
        rows = rng.choice(self.rows, self.settings.batch_size, replace=False, p=self.shares)
        captions = [self.data.captions[row] for row in rows]
        subjects = [draw_subject(caption.name, caption.tags, rng) for caption in captions]
        texts = [put_in_template(subject, rng) for subject in subjects]
        tokens = tokenize([texts[i] for i in self.part], MAX_TOKENS, truncate=True)
        images = [self._image(rows[i], captions[i], step, i) for i in self.part]
        return Batch(
            normalize(np.stack(images), Preprocessing()),
            tokens,
            np.unique(subjects, return_inverse=True)[1],
            np.unique([caption.concept for caption in captions], return_inverse=True)[1],
        )

    def _image(self, row: int, caption: Caption, step: int, place: int) -> np.ndarray:
        rng = np.random.default_rng([self.settings.seed, step, place])
        resolution = self.settings.resolution(step, self.resolution)
        return augment(self.data.images[row], resolution, may_flip(caption.name), rng)


def sampling_weight(caption: Caption) -> float:
    """How often an image is shown: flags and the many emoji of persons less than things."""
    if caption.concept.startswith("flag-"):
        return 0.1 * caption.weight
    if any(
        word in caption.name.split()
        for word in ("man", "woman", "men", "women", "person", "people", "family")
    ):
        return 0.35 * caption.weight
    return caption.weight
