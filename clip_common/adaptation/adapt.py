"""Adapt a module to images, from reading them to a weights file: prepare, train, mix, write."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist

from ..config import Pretrained, pretrained
from ..errors import RequestError
from ..evaluation import evaluate
from ..evaluation.datasets import read_labelled
from ..models.clip import CLIP
from ..models.dynamic_graph import dynamic_graph
from ..models.factory import load_model
from ..predictor import Predictor, PredictorOptions
from ..system.file_names import encodable
from ..system.log import logger
from ..system.output import atomic_file, write_text
from ..trainer import checkpoint, parallel, run
from ..trainer.checkpoint import Arrays
from ..trainer.settings import RunSettings
from ..trainer.trainer import Trainer
from ..weights.class_head import Classes
from ..weights.locate import find
from ..weights.model_settings import note_of
from ..weights.tensor_names import from_own
from ..weights.weights_file import WeightsFile, read_openai, write_safetensors
from ..zero_shot.cached_labels import CachedLabels, LabelTargets
from ..zero_shot.scoring import label_logits
from . import interpolation
from .batches import AdaptationBatch, AdaptationBatches, FeatureBatches
from .cache import MOST_IMAGES, FittedCache, fit_cache, limited
from .dataset import Dataset, read_dataset, split
from .evaluator import Evaluator
from .trainers import CaptionTrainer, ClassTrainer

WEIGHTS = "adapted.safetensors"
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


@dataclass(frozen=True)
class Prepared:
    """The images that can be read, divided, with the module's own unit features, float32 [n, d]."""

    train: Dataset
    held_out: Dataset
    train_features: np.ndarray
    held_out_features: np.ndarray
    errors: dict[str, str]


@dataclass(frozen=True)
class Adapted:
    """What came of it. Shares of right answers are 0 to 1; for captions, the mean recall at 1."""

    path: Path
    points: list[interpolation.Point]
    chosen: interpolation.Point
    probe: float | None
    prepared: Prepared


@dataclass(frozen=True)
class AdaptedByCache:
    """What came of a cache.

    Attributes:
        before: the share of held-out images that the names alone get right, 0 to 1; None if none is held out.
        held_out: the same with the cache.
    """

    path: Path
    fitted: FittedCache
    before: float | None
    held_out: float | None
    prepared: Prepared


def adapt_by_cache(task: AdaptationTask) -> AdaptedByCache:
    """Put a cache of the images beside the classes' names; write `adapted.safetensors` and `figures.json`.

    Raises:
        ClipError: the data, the weights or the disk is not as it must be.
    """
    task.check()
    run.begun(task.output, task.resume)
    predictor = task.predictor()
    prepared = prepare(task, predictor)
    train, rest = prepared.train, prepared.held_out
    names = _names(task, predictor, train)
    scale = predictor.logit_scale
    fitted = fit_cache(train, prepared.train_features, names, scale, task.alpha, task.beta)

    def right(targets: LabelTargets) -> float | None:
        if not len(rest.images):
            return None
        logits = label_logits(prepared.held_out_features, targets, scale)
        return float((logits.argmax(axis=1) == rest.targets).mean())

    path = task.output / WEIGHTS
    adapted = AdaptedByCache(path, fitted, right(names), right(fitted.targets()), prepared)
    _write(path, task, {}, fitted.classes)
    _write_figures(task, cache_figures(task, adapted))
    return adapted


def adapt(task: AdaptationTask) -> Adapted:
    """Adapt, and write `adapted.safetensors`, `figures.json`, `trade_off.png` and `curves.png`.

    Raises:
        ClipError: the data, the weights, the checkpoint or the disk is not as it must be.
    """
    task.check()
    begun = run.begun(task.output, task.resume)
    predictor = task.predictor()
    reference = read_labelled(task.reference) if task.reference else None
    prepared = prepare(task, predictor)
    embeddings, probe = None, None
    if not prepared.train.captioned:
        embeddings, probe = _beginning(task, predictor, prepared)
    settings = task.settings(prepared.train, predictor.weights_sha256)
    if begun:
        begun.require(settings)
    locked = task.lock_image_tower
    if begun is None or begun.step < settings.steps:
        features = prepared.train_features if locked else None
        parallel.start(_work, (task, settings, prepared.train, features, embeddings), task.workers)
    after = checkpoint.load(task.output / run.CHECKPOINT).average
    held_out_features = prepared.held_out_features if locked else None
    evaluator = Evaluator(
        predictor, _model(task), prepared.held_out, held_out_features, reference, task.batch_size
    )

    def measure(alpha: float) -> interpolation.Point:
        return interpolation.Point(alpha, *evaluator(interpolation.mix(evaluator.before, after, alpha)))

    points = [measure(alpha) for alpha in interpolation.ALPHAS]
    chosen = interpolation.best(points)
    if task.alpha is not None:
        known = {point.alpha: point for point in points}
        chosen = known.get(task.alpha) or measure(task.alpha)
    path = task.output / WEIGHTS
    arrays = interpolation.mix(evaluator.before, after, chosen.alpha)
    classes = None if embeddings is None else Classes(tuple(prepared.train.texts), arrays["classes"])
    _write(path, task, arrays, classes)
    adapted = Adapted(path, points, chosen, probe, prepared)
    interpolation.plot(points, chosen.alpha, probe, task.output / "trade_off.png")
    _write_figures(task, figures(task, adapted))
    return adapted


def _write_figures(task: AdaptationTask, figures: dict[str, Any]) -> None:
    document = json.dumps(figures, indent=1, ensure_ascii=False)
    write_text(task.output / "figures.json", encodable(document))


def prepare(task: AdaptationTask, predictor: Predictor) -> Prepared:
    """Read the images once, leave out those that cannot be read, and divide the rest.

    The features are kept in the run's folder, so that a resumed run begins where it was.

    Raises:
        RequestError: there are no images, or too few to divide.
    """
    dataset = read_dataset(task.data)
    if not dataset.captioned and len(dataset.texts) < 2:
        raise RequestError(f"{task.data}: has one class, {dataset.texts[0]!r}; there must be two at least")
    if dataset.captioned and task.head == "cache":
        raise RequestError(f"{task.data}: has captions, and --head cache is for images by class")
    if task.validation:
        other = read_dataset(task.validation, dataset.texts)
        if other.captioned != dataset.captioned:
            raise RequestError(f"{task.data} and {task.validation}: both need classes, or both captions")
        train, rest = dataset, other
    elif task.head == "cache" and task.held_out == 0:
        train, rest = dataset, dataset.part(np.arange(0))
    else:
        rows, held_out = split(dataset, task.held_out)
        train, rest = dataset.part(rows), dataset.part(held_out)
    if task.head == "cache":
        train = _limited(train)
    if dataset.captioned:
        predictor.tokenize([*train.texts, *rest.texts])  # one that is too long ends here, before any image
    features, kept, errors = _features("train", task, predictor, train)
    if not rest.images:
        return Prepared(train.part(kept), rest, features, features[:0], errors)
    rest_features, rest_kept, rest_errors = _features("held_out", task, predictor, rest)
    readable = train.part(kept), rest.part(rest_kept)
    return Prepared(*readable, features, rest_features, errors | rest_errors)


def _limited(train: Dataset) -> Dataset:
    """What a cache holds of the images; how many are too many is said."""
    few = limited(train)
    if len(few.images) < len(train.images):
        too_many = len(train.images) - len(few.images)
        logger.warning("a cache holds %d images at most: %d are left out", MOST_IMAGES, too_many)
    return few


def _features(
    name: str, task: AdaptationTask, predictor: Predictor, dataset: Dataset
) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """The module's features of what can be read, its rows, and others' faults; kept in a file."""
    path = task.output / f"{name}.npz"
    stamp = f"{predictor.weights_sha256} {dataset.content_stamp()}{task.reading}"
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            if str(file["stamp"]) == stamp:
                errors = json.loads(str(file["errors"]))
                if not _any_readable(predictor, dataset, errors):
                    return file["features"], file["kept"], errors
    features, kept, errors = evaluate.image_features(predictor, dataset.images, task.batch_size)
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, stamp=stamp, features=features, kept=kept, errors=json.dumps(errors))
    return features, kept, errors


def _any_readable(predictor: Predictor, dataset: Dataset, errors: dict[str, str]) -> bool:
    """Whether an image that could not be read can be read now: a disk may have come back."""
    failed = (image for image in dataset.images if image[0] in errors)
    return any(isinstance(predictor.prepare(image), np.ndarray) for image in failed)


def _beginning(
    task: AdaptationTask, predictor: Predictor, prepared: Prepared
) -> tuple[np.ndarray, float | None]:
    """The classes' embeddings that training begins with; if they are a probe's, its accuracy, held out."""
    train = prepared.train
    names = _names(task, predictor, train)
    if task.head == "text":
        return names, None
    from ..evaluation.probe import fit_probe  # scikit-learn is of the extra [evaluate]

    if len(np.unique(train.targets)) < len(train.texts):
        raise RequestError("--head probe needs training images of every class")
    weights = fit_probe(prepared.train_features, train.targets, task.seed, intercept=False).classifier.coef_
    if len(train.texts) == 2:  # one embedding, for the second class against the first
        weights = np.concatenate([-weights, weights]) / 2
    right = (prepared.held_out_features @ weights.T).argmax(axis=1) == prepared.held_out.targets
    accuracy = float(right.mean())
    return (weights / predictor.logit_scale).astype("float32"), accuracy


def _names(task: AdaptationTask, predictor: Predictor, train: Dataset) -> np.ndarray:
    """The classes' embeddings by their names; or, where the weights have such classes, those that they bring.

    Raises:
        RequestError: they bring a cache, which is no embeddings.
    """
    targets = predictor.label_targets(predictor.class_prompts(train.texts))
    if isinstance(targets, CachedLabels):
        raise RequestError(
            f"{task.weights}: has a cache of images of these classes, from which nothing can go on: give the "
            "weights that it was made from"
        )
    return targets


def _work(
    task: AdaptationTask,
    settings: AdaptationSettings,
    train: Dataset,
    features: np.ndarray | None,
    embeddings: np.ndarray | None,
) -> None:
    """A worker's life; with features the image tower is locked."""
    parallel.configure(task.workers)
    clip = _model(task)
    batches: Callable[[int], AdaptationBatch]
    if features is None:
        preprocess = task.predictor().preprocess
        batches = AdaptationBatches(train, preprocess, settings, task.flip, dist.get_rank())
    else:
        batches = FeatureBatches(train, features, settings, dist.get_rank())
        del clip.visual  # its features are there
    trainer: Trainer
    if embeddings is None:
        trainer = CaptionTrainer(clip, Predictor(task.record).tokenize(train.texts), settings, task.bfloat16)
    else:
        trainer = ClassTrainer(clip, embeddings, settings, task.bfloat16)
    with dynamic_graph():
        run.train(trainer, batches, task.output, task.resume, task.save_every)


def _model(task: AdaptationTask) -> CLIP:
    """The module's model as it was, on the device that is asked for."""
    if task.use_gpu and not paddle.is_compiled_with_cuda():
        raise RequestError("--use_gpu: the installed PaddlePaddle is the CPU build (see the README)")
    if task.workers == 1:  # else each worker has its own
        paddle.set_device("gpu" if task.use_gpu else "cpu")
    model = load_model(_weights(task))
    model.to(paddle.get_device())
    return model


def _weights(task: AdaptationTask) -> WeightsFile:
    return find(task.record, task.weights)


def _write(path: Path, task: AdaptationTask, arrays: Arrays, classes: Classes | None) -> None:
    """The module's weights with what was adapted of them, each tensor in the type that it had."""
    weights = _weights(task)
    state = read_openai(weights.path)
    for name, value in from_own(arrays).items():
        if name in state:
            state[name] = value.astype(state[name].dtype)
    record: dict[str, Any] = {"layout": "openai", "module": task.module, "source_sha256": weights.sha256}
    record |= note_of(weights.record)
    if classes:
        state |= classes.tensors()
        record |= classes.note()
    with atomic_file(path) as temporary:
        write_safetensors(state, temporary, record)


def figures(task: AdaptationTask, adapted: Adapted) -> dict:
    """All figures, ready for JSON."""
    train, rest = adapted.prepared.train, adapted.prepared.held_out
    return {
        "module": task.module,
        "measure": "mean recall at 1" if train.captioned else "top-1",
        "classes": None if train.captioned else train.texts,
        "training images": len(train.images),
        "held-out images": len(rest.images),
        "before": adapted.points[0].held_out,
        "linear probe": adapted.probe,
        "adapted": asdict(adapted.chosen),
        "trade-off": [asdict(point) for point in adapted.points],
        "errors": adapted.prepared.errors,
    }


def cache_figures(task: AdaptationTask, adapted: AdaptedByCache) -> dict:
    """All figures of a cache, ready for JSON."""
    fitted, train = adapted.fitted, adapted.prepared.train
    return {
        "module": task.module,
        "measure": "top-1",
        "classes": train.texts,
        "training images": len(train.images),
        "held-out images": len(adapted.prepared.held_out.images),
        "before": adapted.before,
        "cache": {"held_out": adapted.held_out, **asdict(fitted.strength)},
        "each left out": {"before": fitted.before, "cache": fitted.accuracy},
        "errors": adapted.prepared.errors,
    }
