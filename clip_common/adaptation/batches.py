"""Training batches: randomly cropped images in the module's preprocessing, or precomputed features if the
image tower is locked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from ..errors import TrainingError
from ..inputs import NamedImage
from ..preprocessing.image import Preprocess
from ..system.prefetch import prefetch
from ..system.words import counted
from ..trainer.settings import RunSettings
from .dataset import Dataset

CROP_AREA = (0.7, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class AdaptationBatch:
    """One worker's share of the images of a step, and the targets of the whole batch."""

    images: np.ndarray  # float32 [part, 3, R, R], or features [part, d]
    targets: np.ndarray  # int64 [batch]
    part: range  # this worker's rows of the batch


class _Batches:
    """Selects the images of a step, from the seed and the step only, and the share of one worker.

    An epoch has every image once, without the last few that do not fill a batch.
    """

    def __init__(self, dataset: Dataset, settings: RunSettings, worker: int) -> None:
        self.dataset, self.settings = dataset, settings
        self.epoch = len(dataset.images) // settings.batch_size  # steps
        if self.epoch == 0:
            raise TrainingError(
                f"{counted(len(dataset.images), 'image')} to train on, fewer than a batch "
                f"({settings.batch_size})"
            )
        if settings.batch_size % settings.workers:
            raise TrainingError(
                f"a batch of {settings.batch_size} cannot be divided among {settings.workers} workers"
            )
        size = settings.batch_size // settings.workers
        self.part = range(worker * size, (worker + 1) * size)

    def rows(self, step: int) -> np.ndarray:
        """Indices of the images of a step, int64 [batch]."""
        epoch, place = divmod(step, self.epoch)
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self.dataset.images))
        size = self.settings.batch_size
        return order[place * size : (place + 1) * size]


class FeatureBatches(_Batches):
    """Batches of precomputed features, for a locked image tower.

    Args:
        features: features of the images, float32 [n, d].
    """

    def __init__(
        self, dataset: Dataset, features: np.ndarray, settings: RunSettings, worker: int = 0
    ) -> None:
        super().__init__(dataset, settings, worker)
        self.features = features

    def __call__(self, step: int) -> AdaptationBatch:
        """A worker's part of a step."""
        rows = self.rows(step)
        return AdaptationBatch(self.features[rows[list(self.part)]], self.dataset.targets[rows], self.part)


class AdaptationBatches(_Batches):
    """Batches of images, for training the image tower.

    Args:
        flip: mirror images at random, with probability 1/2.
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocess: Preprocess,
        settings: RunSettings,
        flip: bool = False,
        worker: int = 0,
    ) -> None:
        super().__init__(dataset, settings, worker)
        self.preprocess, self.flip = preprocess, flip

    def __call__(self, step: int) -> AdaptationBatch:
        """A worker's part of a step.

        Raises:
            ImageError: an image cannot be read any more.
        """
        rows = self.rows(step)

        def image(i: int) -> np.ndarray:
            rng = np.random.default_rng([self.settings.seed, step, i])
            return self._showing(self.dataset.images[rows[i]], rng)

        pixels = list(prefetch(image, self.part, len(self.part)))
        return AdaptationBatch(np.stack(pixels), self.dataset.targets[rows], self.part)

    def _showing(self, named: NamedImage, rng: np.random.Generator) -> np.ndarray:
        name, source = named
        image = self.preprocess.open(source, name)
        image = image.crop(crop_box(image, rng))
        if self.flip and rng.random() < 0.5:
            image = ImageOps.mirror(image)
        return self.preprocess.pixels(image, name)


def crop_box(image: Image.Image, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A random crop of 70 to 100 % of the area, of similar aspect: left, upper, right, lower in pixels."""
    width, height = image.size
    side = math.sqrt(rng.uniform(*CROP_AREA))
    stretch = math.sqrt(math.exp(rng.uniform(*np.log(CROP_ASPECT))))
    w = max(1, round(width * min(1, side * stretch)))
    h = max(1, round(height * min(1, side / stretch)))
    left, upper = rng.integers(width - w + 1), rng.integers(height - h + 1)
    return int(left), int(upper), int(left) + w, int(upper) + h
