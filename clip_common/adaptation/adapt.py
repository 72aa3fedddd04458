"""Adapt a module to images: prepare the data, train, interpolate, and write a weights file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist

from ..errors import RequestError
from ..evaluation.datasets import read_labelled
from ..models.clip import CLIP
from ..models.dynamic_graph import dynamic_graph
from ..models.factory import load_model
from ..predictor import Predictor
from ..system.file_names import encodable
from ..system.output import atomic_file, held_folder, write_text
from ..trainer import checkpoint, parallel, run
from ..trainer.checkpoint import Arrays
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
from .cache import FittedCache, fit_cache
from .dataset import Dataset
from .evaluator import Evaluator
from .prepare import Prepared, prepare
from .task import FIGURES, TRADE_OFF, WEIGHTS, AdaptationSettings, AdaptationTask
from .trainers import CaptionTrainer, ClassTrainer

_RESULTS = (WEIGHTS, FIGURES, TRADE_OFF)


@dataclass(frozen=True)
class Adapted:
    """The result of an adaptation. Accuracies are 0 to 1; for captions, they are mean recall at 1.

    Attributes:
        path: the weights file.
        points: accuracies of all interpolated models.
        chosen: the interpolated model that was written.
        probe: held-out accuracy of the linear probe that training began with, if any.
        prepared: the data.
    """

    path: Path
    points: list[interpolation.Point]
    chosen: interpolation.Point
    probe: float | None
    prepared: Prepared


@dataclass(frozen=True)
class AdaptedByCache:
    """The result of an adaptation by a cache.

    Attributes:
        path: the weights file.
        fitted: the cache.
        before: held-out accuracy without the cache, 0 to 1; None if nothing is held out.
        held_out: held-out accuracy with the cache.
        prepared: the data.
    """

    path: Path
    fitted: FittedCache
    before: float | None
    held_out: float | None
    prepared: Prepared


def adapt_by_cache(task: AdaptationTask) -> AdaptedByCache:
    """Adapt by a cache of the images, without training; write `adapted.safetensors` and `figures.json`.

    Raises:
        ClipError: invalid data, options or weights, or the output folder cannot be used.
    """
    task.check()
    with held_folder(task.output):
        run.require_none(task.output, (run.CHECKPOINT, run.CURVES, *_RESULTS))
        return _adapt_by_cache(task)


def _adapt_by_cache(task: AdaptationTask) -> AdaptedByCache:
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
    """Adapt by training; write `adapted.safetensors`, `figures.json`, `trade_off.png` and `curves.png`.

    Raises:
        ClipError: invalid data, options, weights or checkpoint, or the output folder cannot be used.
    """
    task.check()
    with run.begun(task.output, task.resume, _RESULTS) as begun:
        return _adapt(task, begun)


def _adapt(task: AdaptationTask, begun: checkpoint.Checkpoint | None) -> Adapted:
    """Train or resume; mix the weights and write them."""
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
    interpolation.plot(points, chosen.alpha, probe, task.output / TRADE_OFF)
    _write_figures(task, figures(task, adapted))
    return adapted


def _write_figures(task: AdaptationTask, figures: dict[str, Any]) -> None:
    document = json.dumps(figures, indent=1, ensure_ascii=False)
    write_text(task.output / FIGURES, encodable(document))


def _beginning(
    task: AdaptationTask, predictor: Predictor, prepared: Prepared
) -> tuple[np.ndarray, float | None]:
    """The initial class embeddings, float32 [classes, d], and the held-out accuracy of a probe, if used."""
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
    """Class embeddings, from their names or, if the weights have these classes, from the weights.

    Raises:
        RequestError: the weights have an image cache of these classes.
    """
    targets = predictor.labels.targets(predictor.labels.class_prompts(train.texts))
    if isinstance(targets, CachedLabels):
        raise RequestError(
            f"{task.weights}: has a cache of images, and cannot be adapted further: give the "
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
    """The main function of a worker. With `features`, the image tower is locked."""
    parallel.configure(task.workers)
    clip = _model(task)
    batches: Callable[[int], AdaptationBatch]
    if features is None:
        preprocess = task.predictor().preprocess
        batches = AdaptationBatches(train, preprocess, settings, task.flip, dist.get_rank())
    else:
        batches = FeatureBatches(train, features, settings, dist.get_rank())
        del clip.visual  # replaced by the precomputed features
    trainer: Trainer
    if embeddings is None:
        trainer = CaptionTrainer(clip, Predictor(task.record).tokenize(train.texts), settings, task.bfloat16)
    else:
        trainer = ClassTrainer(clip, embeddings, settings, task.bfloat16)
    with dynamic_graph():
        run.train(trainer, batches, task.output, task.resume, task.save_every)


def _model(task: AdaptationTask) -> CLIP:
    """Load the module's model, on the device of the task."""
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
    """Write the module's weights with the adapted tensors, converted to their original types."""
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
    """All figures of an adaptation, as JSON values."""
    own = {
        "before": adapted.points[0].held_out,
        "linear probe": adapted.probe,
        "adapted": asdict(adapted.chosen),
        "trade-off": [asdict(point) for point in adapted.points],
    }
    return _with_data(task, adapted.prepared, own)


def cache_figures(task: AdaptationTask, adapted: AdaptedByCache) -> dict:
    """All figures of an adaptation by a cache, as JSON values."""
    fitted = adapted.fitted
    own = {
        "before": adapted.before,
        "cache": {"held_out": adapted.held_out, **asdict(fitted.strength)},
        "each left out": {"before": fitted.before, "cache": fitted.accuracy},
    }
    return _with_data(task, adapted.prepared, own)


def _with_data(task: AdaptationTask, prepared: Prepared, figures: dict) -> dict:
    """Add the description of the data, and the errors, to the figures."""
    train = prepared.train
    return {
        "module": task.module,
        "measure": "mean recall at 1" if train.captioned else "top-1",
        "classes": None if train.captioned else train.texts,
        "training images": len(train.images),
        "held-out images": len(prepared.held_out.images),
        **figures,
        "errors": prepared.errors,
    }
