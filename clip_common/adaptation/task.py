"""What an adaptation is asked for, and the settings of its training."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from ..config import Pretrained, pretrained
from ..errors import RequestError
from ..predictor import Predictor, PredictorOptions
from ..trainer.settings import RunSettings
from .dataset import Dataset

WEIGHTS, FIGURES, TRADE_OFF = "adapted.safetensors", "figures.json", "trade_off.png"  # in its folder
_OF_TRAINING = (
    "reference", "flip", "epochs", "learning_rate", "weight_decay", "bfloat16", "use_gpu", "workers", "seed",
    "save_every", "resume", "lock_image_tower",
)  # fmt: skip
_LOCKED_RATE = 10  # times the module's: embeddings of classes alone bear it, and need it to get far enough


@dataclass(frozen=True)
class AdaptationSettings(RunSettings):
    """The settings of an adaptation.

    Attributes:
        weights: the hash of the weights that the run began with.
        data: a hash of the training images, their targets, and of how they are read.
    """

    head: str
    lock_image_tower: bool
    flip: bool
    bfloat16: bool
    weights: str
    data: str


@dataclass(frozen=True)
class AdaptationTask:
    """What is asked for.

    Attributes:
        module: the module that is adapted.
        weights: a weights file in place of its own.
        data: images to adapt to, see `read_dataset`.
        validation: images that are held out; None holds out `held_out` of the data.
        reference: images of another kind, whose accuracy is to be seen beside.
        held_out: the share to hold out; 0, nothing, is for a cache.
        head: where the classes' embeddings begin: "text", their names in the module's templates, or "probe",
            logistic regression on the frozen features (Kumar et al. 2022, LP-FT). Or "cache": nothing is
            trained, and the images are kept beside the names (Zhang et al. 2022, Tip-Adapter).
        lock_image_tower: train all but the image tower (Zhai et al. 2022, LiT), on features that are computed
            once.
        flip: mirror every other image.
        alpha: how far to go towards the adapted weights; None takes what is best on the held-out images. Of a
            cache, how much it counts.
        beta: of a cache, how fast an image's affinity falls with its distance; None chooses it.
        learning_rate: None for the module's.
        engine: what runs the model before it is adapted, on the CPU, see `Predictor`.
        exif_rotation: turn images as their EXIF tag says.
        fast_jpeg: decode large JPEG photographs at a fraction of their size.
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
        """The module as it was."""
        options = PredictorOptions(self.weights, self.exif_rotation, self.fast_jpeg, self.engine)
        return options.predictor(self.record)

    @property
    def reading(self) -> str:
        """How images are read, where that is not the usual way."""
        options = ("exif_rotation", "fast_jpeg")
        return "".join(f" {name}" for name in options if getattr(self, name))

    def check(self) -> None:
        """Check that the options go together.

        Raises:
            RequestError: naming one that does not.
        """
        if self.held_out >= 1 or (self.held_out == 0 and self.head != "cache"):
            raise RequestError(
                f"--held_out is {self.held_out:g}, expected more than 0 and less than 1: give others with "
                "--validation; only a cache needs none"
            )
        if self.head == "cache":
            for field in fields(self):
                if field.name in _OF_TRAINING and getattr(self, field.name) != field.default:
                    raise RequestError(f"--head cache trains nothing: leave --{field.name} out")
        elif self.beta is not None:
            raise RequestError("--beta is for --head cache: leave it out")
        elif self.alpha is not None and self.alpha > 1:
            raise RequestError(f"--alpha is {self.alpha:g}, expected 0 to 1: only of a cache it may be more")
        if self.lock_image_tower and self.flip:
            raise RequestError("--flip is for training the image tower: leave it or --lock_image_tower out")

    def settings(self, train: Dataset, weights_sha256: str) -> AdaptationSettings:
        """The run's, on these training images and from these weights."""
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
