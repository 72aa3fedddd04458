"""Evaluate a model on data sets: zero-shot accuracy, multi-label precision, linear probe, retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from ..config import PUBLISHED_TOP_1
from ..errors import ImageError, RequestError
from ..inputs import NamedImage
from ..predictor import Predictor
from ..system.progress import progress_bar
from ..text.prompts import Prompts
from ..zero_shot.cached_labels import LabelTargets
from ..zero_shot.scoring import cosines, l2_normalize, label_logits, softmax
from . import metrics
from .labelled import Labelled, MultiLabelled, named_file

RECALLS = (1, 5, 10)


@dataclass(frozen=True)
class Figures:
    """The results of an evaluation.

    Attributes:
        numbers: names and values, ready for JSON.
        errors: why an image could not be read, by its name; such images are not counted.
        confusion: confusion matrix, int64 [classes, classes], rows are the true classes.
        calibration: calibration table, see `metrics.calibration`.
        classes: names of the classes of `confusion`.
        average_precision: average precision of each label that occurs.
    """

    numbers: dict[str, float | int]
    errors: dict[str, str]
    confusion: np.ndarray | None = None
    calibration: np.ndarray | None = None
    classes: list[str] = field(default_factory=list)
    average_precision: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """The encoded images and classes of a data set.

    Attributes:
        prompts: the classes in their templates.
        features: unit features of the readable images, float32 [n, d].
        targets: class embeddings, [classes, d], or these with an image cache.
        kept: indices of the readable images in the data set, int64 [n].
        errors: why the other images cannot be read, by name.
    """

    prompts: Prompts
    features: np.ndarray
    targets: LabelTargets
    kept: np.ndarray
    errors: dict[str, str]

    @cached_property
    def cosines(self) -> np.ndarray:
        """Cosine of each image with each class, float64 [n, classes]."""
        return cosines(self.features, self.targets)


def score(
    predictor: Predictor,
    data: Labelled | MultiLabelled,
    templates: str | Sequence[str] | None = None,
    batch_size: int = 32,
    use_gpu: bool = False,
) -> Scored:
    """Encode a data set and its classes.

    Args:
        predictor: the model.
        data: the data set.
        templates: prompt templates; default: the module's, or none for classes stored in the weights file.
        batch_size: number of images at once.
        use_gpu: run on the GPU.

    Raises:
        ClipError: invalid templates or classes, or no image can be read.
    """
    # Before the images, so that invalid classes and templates are reported at once.
    prompts = predictor.labels.class_prompts(data.classes, templates)
    features, kept, errors = image_features(predictor, data.images, batch_size, use_gpu)
    return Scored(prompts, features, predictor.labels.targets(prompts, use_gpu), kept, errors)


def require_classes(data: Labelled) -> None:
    """Check that there are at least two classes; raises `RequestError`."""
    if len(data.classes) < 2:
        raise RequestError(f"only one class, {data.classes[0]!r}: there is nothing to choose from")


def zero_shot_figures(predictor: Predictor, data: Labelled, scored: Scored) -> Figures:
    """Compute zero-shot accuracy (paper section 3.1) from the encoded data set."""
    probabilities = softmax(label_logits(scored.features, scored.targets, predictor.logit_scale))
    targets = data.targets[scored.kept]
    predicted = probabilities.argmax(axis=1)
    table, error = metrics.calibration(probabilities, targets)
    numbers: dict[str, float | int] = {
        "images": len(targets),
        "classes": len(data.classes),
        "top-1": metrics.top_k_accuracy(probabilities, targets, 1),
        "top-5": metrics.top_k_accuracy(probabilities, targets, 5),
        "mean per class": metrics.mean_per_class_accuracy(predicted, targets),
        "calibration error": error,
    }
    own = predictor.options.weights in (None, predictor.record.weights.tag)
    published = PUBLISHED_TOP_1.get(data.published or "", {})
    if own and predictor.record.name in published:
        numbers["published top-1"] = published[predictor.record.name]
    confusion = metrics.confusion_matrix(predicted, targets, len(data.classes))
    return Figures(numbers, scored.errors, confusion, table, data.classes)


def multi_label_figures(data: MultiLabelled, scored: Scored) -> Figures:
    """Compute the average precision of each label, with cosines as scores.

    A label that no image has is left out of the mean.

    Raises:
        RequestError: no readable image has a label.
    """
    truth, scores = data.truth[scored.kept], scored.cosines
    occurring = np.flatnonzero(truth.any(axis=0))
    if not len(occurring):
        raise RequestError("no image that can be read has a label")
    precisions = {data.classes[i]: metrics.average_precision(scores[:, i], truth[:, i]) for i in occurring}
    numbers: dict[str, float | int] = {
        "images": len(truth),
        "images with no label": int((~truth.any(axis=1)).sum()),
        "labels": len(data.classes),
        "labels of no image": len(data.classes) - len(occurring),
        "labels an image": float(truth.sum(axis=1).mean()),
        "mean average precision": float(np.mean(list(precisions.values()))),
    }
    return Figures(numbers, scored.errors, average_precision=precisions)


def linear_probe(
    predictor: Predictor, train: Labelled, test: Labelled, batch_size: int = 32, use_gpu: bool = False
) -> Figures:
    """Fit logistic regression to the frozen features of `train`, and measure its accuracy on `test`.

    Raises:
        RequestError: the classes differ, or no image can be read.
    """
    from .probe import fit_probe  # scikit-learn is of the extra [evaluate]

    if train.classes != test.classes:
        raise RequestError("the classes of --train and of the data are not the same")
    features, kept, errors = image_features(predictor, train.images, batch_size, use_gpu)
    probe = fit_probe(features, train.targets[kept])
    test_features, test_kept, test_errors = image_features(predictor, test.images, batch_size, use_gpu)
    targets = test.targets[test_kept]
    predicted = probe.classifier.predict(test_features)
    numbers: dict[str, float | int] = {
        "training images": len(features),
        "images": len(targets),
        "classes": len(test.classes),
        "top-1": float((predicted == targets).mean()),
        "mean per class": metrics.mean_per_class_accuracy(predicted, targets),
        "C": probe.c,
    }
    confusion = metrics.confusion_matrix(predicted, targets, len(test.classes))
    return Figures(numbers, errors | test_errors, confusion, None, test.classes)


def retrieval(
    predictor: Predictor, pairs: Sequence[tuple[Path, str]], batch_size: int = 32, use_gpu: bool = False
) -> Figures:
    """Measure recall at 1, 5 and 10, from images to captions and back. An image may have several captions."""
    predictor.tokenize([caption for _, caption in pairs])  # reports long captions before any image is read
    files = list(dict.fromkeys(file for file, _ in pairs))
    images = [named_file(file) for file in files]
    features, kept, errors = image_features(predictor, images, batch_size, use_gpu)
    row_of = {files[i]: row for row, i in enumerate(kept)}
    readable = [(row_of[file], caption) for file, caption in pairs if file in row_of]
    captions = list(dict.fromkeys(caption for _, caption in readable))
    column_of = {caption: i for i, caption in enumerate(captions)}
    relevant = np.zeros((len(features), len(captions)), bool)
    for row, caption in readable:
        relevant[row, column_of[caption]] = True
    texts = l2_normalize(predictor.text_features(captions, batch_size, use_gpu))
    similarity = features @ texts.T  # images captions
    numbers: dict[str, float | int] = {"images": len(features), "captions": len(captions)}
    for k in RECALLS:
        numbers[f"image to text R@{k}"] = metrics.retrieval_recall(similarity, relevant, k)
    for k in RECALLS:
        numbers[f"text to image R@{k}"] = metrics.retrieval_recall(similarity.T, relevant.T, k)
    return Figures(numbers, errors)


def image_features(
    predictor: Predictor, images: Sequence[NamedImage], batch_size: int, use_gpu: bool = False
) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Encode images.

    Returns:
        Unit features of the readable images, float32 [n, d]; their indices, int64 [n]; and why other images
        cannot be read, by name.

    Raises:
        RequestError: no image can be read.
    """
    features: list[np.ndarray] = []
    kept: list[int] = []
    errors: dict[str, str] = {}
    items = chain.from_iterable(predictor.image_features(images, batch_size, use_gpu))
    with progress_bar(desc="images", total=len(images), unit="", mininterval=1) as bar:
        for i, item in enumerate(items):
            if isinstance(item, ImageError):
                errors[images[i][0]] = str(item)
            else:
                features.append(item)
                kept.append(i)
            bar.update()
    if not features:
        raise RequestError(f"no image can be read; the first: {next(iter(errors.values()), 'there is none')}")
    return l2_normalize(np.stack(features)), np.array(kept), errors
