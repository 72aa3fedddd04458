"""The options of an adaptation, and the settings of its training run."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

from ..config import Pretrained, pretrained
from ..errors import RequestError
from ..predictor import Predictor, PredictorOptions
from ..trainer.settings import RunSettings
from ..weights.class_head import MOST_STRENGTH
from .dataset import Dataset

WEIGHTS, FIGURES, TRADE_OFF = "adapted.safetensors", "figures.json", "trade_off.png"  # in its folder
_OF_TRAINING = (
    "reference", "flip", "epochs", "learning_rate", "weight_decay", "bfloat16", "use_gpu", "workers", "seed",
    "save_every", "resume", "lock_image_tower",
)  # fmt: skip
_LOCKED_RATE = 10  # learning rate factor if only class embeddings are trained, which need larger steps


@dataclass(frozen=True)
class AdaptationSettings(RunSettings):
    """The settings of the training run of an adaptation; a run can only be resumed with equal settings.

    Attributes:
        weights: hash of the initial weights.
        data: hash of the names and targets of the training images, and the options for reading them.
    """

    head: str
    lock_image_tower: bool
    flip: bool
    bfloat16: bool
    weights: str
    data: str


@dataclass(frozen=True)
class AdaptationTask:
    """The options of an adaptation.

    Attributes:
        module: the module to adapt.
        data: images to adapt to, see `read_dataset`.
        output: folder of the run.
        weights: initial weights: a file or a tag; None for the module's own.
        validation: images to hold out; None holds out a share of the data.
        reference: images of another kind, on which to measure the accuracy as well.
        held_out: share of the data to hold out, between 0 and 1; 0 only with a cache.
        head: how class embeddings are initialised: "text", from their names in the module's templates, or
            "probe", by logistic regression on the frozen features (Kumar et al. 2022, LP-FT). Or "cache":
            without training, store the images beside the names (Zhang et al. 2022, Tip-Adapter).
        lock_image_tower: train everything except the image tower (Zhai et al. 2022, LiT), on features that
            are computed once.
        flip: mirror images at random.
        alpha: interpolation towards the adapted weights, 0 to 1; None chooses the best on the held-out
            images. With a cache: its weight.
        beta: with a cache, the decay of affinities with distance; None chooses it.
        learning_rate: None for the module's default.
        engine: CPU backend for the model before adaptation, see `Predictor`.
        exif_rotation: rotate images according to their EXIF orientation.
        fast_jpeg: decode large JPEG files at reduced size.
    """

    module: str
    data: str
    output: Path
    weights: str | None = None
    validation: str | None = None
    reference: str | None = None
    held_out: float = 0.1
    head: str = "text"
    lock_image_tower: bool = False
    flip: bool = False
    alpha: float | None = None
    beta: float | None = None
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float | None = None
    weight_decay: float = 0.1
    bfloat16: bool = False
    use_gpu: bool = False
    workers: int = 1
    seed: int = 0
    save_every: int = 100
    resume: bool = False
    engine: str = "auto"
    exif_rotation: bool = False
    fast_jpeg: bool = False

    @property
    def record(self) -> Pretrained:
        """The module's record."""
        return pretrained(self.module)

    def predictor(self) -> Predictor:
        """The module before adaptation."""
        options = PredictorOptions(self.weights, self.exif_rotation, self.engine, fast_jpeg=self.fast_jpeg)
        return options.predictor(self.record)

    @property
    def reading(self) -> str:
        """The options for reading images that are not default, as text."""
        options = ("exif_rotation", "fast_jpeg")
        return "".join(f" {name}" for name in options if getattr(self, name))

    def check(self) -> None:
        """Check that the options are consistent.

        Raises:
            RequestError: they are not; the message names the option.
        """
        if self.held_out >= 1 or (self.held_out == 0 and self.head != "cache"):
            raise RequestError(
                f"--held_out is {self.held_out:g}, expected more than 0 and less than 1, or give images with "
                "--validation; only --head cache allows 0"
            )
        if not self.use_gpu and self.workers > (cpus := os.cpu_count() or 1):
            raise RequestError(
                f"--workers is {self.workers}, but there are {cpus} CPU cores: give at most {cpus}"
            )
        if self.head == "cache":
            for field in fields(self):
                if field.name in _OF_TRAINING and getattr(self, field.name) != field.default:
                    raise RequestError(f"--head cache trains nothing: leave --{field.name} out")
            for name, value in (("alpha", self.alpha), ("beta", self.beta)):
                if value is not None and value > MOST_STRENGTH:
                    raise RequestError(f"--{name} is {value:g}, expected at most {MOST_STRENGTH:,}")
        elif self.beta is not None:
            raise RequestError("--beta is for --head cache: leave it out")
        elif self.alpha is not None and self.alpha > 1:
            raise RequestError(f"--alpha is {self.alpha:g}, expected 0 to 1; only --head cache allows more")
        if self.lock_image_tower and self.flip:
            raise RequestError("--flip is for training the image tower: leave it or --lock_image_tower out")

    def settings(self, train: Dataset, weights_sha256: str) -> AdaptationSettings:
        """The settings of the training run on these images, from these weights."""
        images = len(train.images)
        size = min(self.batch_size, images - images % self.workers)
        steps = self.epochs * (images // max(size, 1))
        return AdaptationSettings(
            steps=steps,
            batch_size=size,
            learning_rate=self.learning_rate or self._usual_rate(train),
            warm_up=max(1, steps // 10),
            weight_decay=self.weight_decay,
            average_decay=0.99,
            workers=self.workers,
            seed=self.seed,
            head=self.head,
            lock_image_tower=self.lock_image_tower,
            flip=self.flip,
            bfloat16=self.bfloat16,
            weights=weights_sha256,
            data=train.stamp() + self.reading,
        )

    def _usual_rate(self, train: Dataset) -> float:
        only_classes = self.lock_image_tower and not train.captioned
        return self.record.adaptation_rate * (_LOCKED_RATE if only_classes else 1)
