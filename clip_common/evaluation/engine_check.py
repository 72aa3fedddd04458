"""Compares all engines and precisions on a user's own images: speed, and difference from float32."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from ..engines.base import ENGINES, PRECISIONS
from ..engines.select import choose
from ..errors import ClipError, ImageError, RequestError
from ..inputs import NamedImage
from ..predictor import Predictor
from ..system.prefetch import prefetch
from ..system.progress import progress_bar
from ..zero_shot.scoring import l2_normalize, top_k_labels

BATCH_SIZE = 32
_ROUNDS = 5  # after one for warm-up


@dataclass(frozen=True)
class Row:
    """The results of one engine in one precision.

    Attributes:
        images_per_second: speed of the image encoder on prepared images, after warm-up; a median.
        mean_cosine: cosine similarity of an image's embedding and the reference's; mean over all images.
        least_cosine: the same for the image that differs most.
        equal_first_answers: share of images, 0 to 1, with the same first label as the reference.
    """

    engine: str
    precision: str
    images_per_second: float
    mean_cosine: float
    least_cosine: float
    equal_first_answers: float


@dataclass(frozen=True)
class EngineCheck:
    """The result of `check_engines`.

    Attributes:
        reference: the engine that the others are compared with, in float32: the one that `auto` selects.
        images: number of images that could be read.
        batch_size: number of images in a timed batch.
        labels: number of labels that the first label was chosen from.
        rows: one for each engine and precision; the reference comes first.
        refused: why an engine and precision is not available here, by "engine, precision".
        errors: why an image could not be read, by the image's name.
    """

    reference: str
    images: int
    batch_size: int
    labels: int
    rows: list[Row]
    refused: dict[str, str]
    errors: dict[str, str]


@dataclass
class _Candidate:
    """An engine in one precision, with its features and timings so far."""

    engine: str
    precision: str
    predictor: Predictor
    features: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def first_labels(self, labels: Sequence[str] | None, templates: Sequence[str] | None) -> list[str]:
        """The label that `classify` puts first, for each image."""
        prompts = self.predictor.labels.prompts(labels, templates)
        targets = self.predictor.labels.targets(prompts)
        scale = self.predictor.logit_scale
        answers = (top_k_labels(feature, targets, scale, prompts.labels, 1) for feature in self.features)
        return [answer[0]["label"] for answer in answers]


def check_engines(
    predictor: Predictor,
    images: Sequence[NamedImage],
    labels: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
) -> EngineCheck:
    """Measure every engine and precision on images.

    Args:
        predictor: the module, with its weights and image options; its engine and precision are ignored.
        images: the images with their names for error messages; one that cannot be read is left out.
        labels: the labels to choose from; None for the module's own.
        templates: the prompt templates of the labels, see `Predictor.classify`.

    Raises:
        RequestError: no image can be read.
        ClipError: the labels or the weights cannot be used.
    """
    asked = predictor.labels.prompts(labels, templates)  # bad labels are an error before the work starts
    candidates, refused = _candidates(predictor)
    timed, errors = _encode(candidates, predictor, images)
    if timed is None:
        why = next(iter(errors.values()), "there are none")
        raise RequestError(f"none of the images can be used ({why}): give at least one that can be read")
    _time(candidates, timed)
    reference = candidates[0]
    wanted = l2_normalize(np.stack(reference.features).astype(np.float64))
    first = reference.first_labels(labels, templates)
    rows = []
    for candidate in candidates:
        found = l2_normalize(np.stack(candidate.features).astype(np.float64))
        cosines = np.minimum(np.einsum("nd,nd->n", wanted, found), 1)
        equal = np.equal(candidate.first_labels(labels, templates), first)
        rate = len(timed) / median(candidate.seconds)
        figures = (rate, float(cosines.mean()), float(cosines.min()), float(equal.mean()))
        rows.append(Row(candidate.engine, candidate.precision, *figures))
    return EngineCheck(reference.engine, len(first), len(timed), len(asked.labels), rows, refused, errors)


def _candidates(predictor: Predictor) -> tuple[list[_Candidate], dict[str, str]]:
    """The engines and precisions that run here, the reference first; and why the others do not.

    Engines that need compiled encoders compile them now.
    """
    best = choose().name
    engines = sorted((name for name in ENGINES if name != "auto"), key=lambda name: name != best)
    candidates, refused = [], {}
    for precision in PRECISIONS:
        for name in engines:
            try:
                choose(name, precision)
                other = predictor.with_options(engine=name, precision=precision)
                opened = other.engine().name
            except ClipError as error:
                refused[f"{name}, {precision}"] = str(error)
                continue
            if opened == name:
                candidates.append(_Candidate(name, precision, other))
            else:
                refused[f"{name}, {precision}"] = "it cannot be compiled here: see the warning"
    return candidates, refused


def _encode(
    candidates: Sequence[_Candidate], predictor: Predictor, images: Sequence[NamedImage]
) -> tuple[np.ndarray | None, dict[str, str]]:
    """Encode all images with each candidate; return the first prepared batch, or None, and errors by name."""
    timed: np.ndarray | None = None
    errors: dict[str, str] = {}
    with progress_bar(total=len(images), unit="image", disable=len(images) < 2) as bar:
        for batch in _batches(predictor, images, errors, bar.update):
            for candidate in candidates:
                candidate.features.extend(candidate.predictor.encode_image(batch))
            timed = batch if timed is None else timed
    return timed, errors


def _batches(
    predictor: Predictor,
    images: Sequence[NamedImage],
    errors: dict[str, str],
    on_read: Callable[[], object],
) -> Iterator[np.ndarray]:
    """Prepared images, float32 [n, 3, R, R], n up to `BATCH_SIZE`; unreadable images go into `errors`."""
    ready: list[np.ndarray] = []
    with closing(prefetch(predictor.prepare, images, BATCH_SIZE)) as read:
        for (name, _), prepared in zip(images, read, strict=True):
            on_read()
            if isinstance(prepared, ImageError):
                errors[name] = str(prepared)
                continue
            ready.append(prepared)
            if len(ready) == BATCH_SIZE:
                yield np.stack(ready)
                ready = []
    if ready:
        yield np.stack(ready)


def _time(candidates: Sequence[_Candidate], batch: np.ndarray) -> None:
    """Time each candidate on a batch, taking turns, so that other load on the machine affects all equally."""
    with progress_bar(total=1 + _ROUNDS, unit="round") as bar:
        for turn in range(1 + _ROUNDS):
            for candidate in candidates:
                start = time.perf_counter()
                candidate.predictor.encode_image(batch)
                if turn:
                    candidate.seconds.append(time.perf_counter() - start)
            bar.update()
