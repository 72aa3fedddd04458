"""Read and split the images of an adaptation, and compute their features before adaptation."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import RequestError
from ..evaluation import evaluate
from ..predictor import Predictor
from ..system.log import logger
from ..system.output import atomic_file
from ..system.reading import open_npz
from .cache import MOST_IMAGES, limited
from .dataset import Dataset, read_dataset, split
from .task import AdaptationTask


@dataclass(frozen=True)
class Prepared:
    """The readable images, split, with their unit features before adaptation.

    Attributes:
        train_features: float32 [n, d].
        held_out_features: float32 [m, d].
        errors: why an image cannot be read, by its name.
    """

    train: Dataset
    held_out: Dataset
    train_features: np.ndarray
    held_out_features: np.ndarray
    errors: dict[str, str]


def prepare(task: AdaptationTask, predictor: Predictor) -> Prepared:
    """Read and split the images, without unreadable ones, and compute their features.

    The features are stored in the output folder, so that a resumed run does not compute them again.

    Raises:
        RequestError: there are no images, or too few to split.
    """
    dataset = read_dataset(task.data)
    if not dataset.captioned and len(dataset.texts) < 2:
        raise RequestError(f"{task.data}: has only one class, {dataset.texts[0]!r}; at least two are needed")
    if dataset.captioned and task.head == "cache":
        raise RequestError(f"{task.data}: has captions, but --head cache needs images by class")
    if task.validation:
        other = read_dataset(task.validation, dataset.texts)
        if other.captioned != dataset.captioned:
            raise RequestError(f"{task.data} and {task.validation}: both need classes, or both need captions")
        train, rest = dataset, other
    elif task.head == "cache" and task.held_out == 0:
        train, rest = dataset, dataset.part(np.arange(0))
    else:
        rows, held_out = split(dataset, task.held_out)
        train, rest = dataset.part(rows), dataset.part(held_out)
    if task.head == "cache":
        train = _limited(train)
    if dataset.captioned:
        predictor.tokenize([*train.texts, *rest.texts])  # a caption that is too long is reported first
    features, kept, errors = _features("train", task, predictor, train)
    if not rest.images:
        return Prepared(train.part(kept), rest, features, features[:0], errors)
    rest_features, rest_kept, rest_errors = _features("held_out", task, predictor, rest)
    readable = train.part(kept), rest.part(rest_kept)
    return Prepared(*readable, features, rest_features, errors | rest_errors)


def _limited(train: Dataset) -> Dataset:
    """Reduce the images to the maximum size of a cache, with a warning."""
    few = limited(train)
    if len(few.images) < len(train.images):
        too_many = len(train.images) - len(few.images)
        logger.warning("a cache holds at most %d images: %d are left out", MOST_IMAGES, too_many)
    return few


def _features(
    name: str, task: AdaptationTask, predictor: Predictor, dataset: Dataset
) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Features of the readable images, their rows, and the errors of the others; from a file if possible."""
    path = task.output / f"{name}.npz"
    stamp = f"{predictor.weights_sha256} {dataset.content_stamp()}{task.reading}"
    known = _known_features(path, stamp)
    if known and not _any_readable(predictor, dataset, known[2]):
        return known
    features, kept, errors = evaluate.image_features(predictor, dataset.images, task.batch_size)
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, stamp=stamp, features=features, kept=kept, errors=json.dumps(errors))
    return features, kept, errors


def _known_features(path: Path, stamp: str) -> tuple[np.ndarray, np.ndarray, dict[str, str]] | None:
    """Features, rows and errors that an earlier run has kept; None if they are of other images.

    Raises:
        RequestError: the file was not written by a run.
    """
    if not path.exists():
        return None
    try:
        with open_npz(path) as file:
            if str(file["stamp"]) != stamp:
                return None
            return file["features"], file["kept"], json.loads(str(file["errors"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise RequestError(f"{path} exists and was not written by a run: choose another --output") from None


def _any_readable(predictor: Predictor, dataset: Dataset, errors: dict[str, str]) -> bool:
    """Whether an image that could not be read before can be read now."""
    failed = (image for image in dataset.images if image[0] in errors)
    return any(isinstance(predictor.prepare(image), np.ndarray) for image in failed)
