"""Every engine and precision that runs here, on a user's own images: how fast, and how near to float32."""

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
from ..zero_shot.scoring import l2_normalize

BATCH_SIZE = 32
_ROUNDS = 5  # beside one that warms up


@dataclass(frozen=True)
class Row:
    """What one engine does in one precision.

    Attributes:
        images_per_second: of the image encoder, from prepared images, warm; the median of some rounds.
        mean_cosine: of an image's embedding with that of the reference, over all images.
        least_cosine: the same, of the image that differs most.
        equal_first_answers: share of images with the first label of the reference.
    """

    engine: str
    precision: str
    images_per_second: float
    mean_cosine: float
    least_cosine: float
    equal_first_answers: float


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        reference: the engine whose float32 the others are compared with: what `auto` means here.
        images: how many images could be read.
        batch_size: images in a timed batch.
        labels: how many labels an answer was chosen from.
        rows: the reference first.
        refused: what does not run here, as "engine, precision", and why.
        errors: images that could not be read, and why.
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
    """An engine in a precision, at work."""

    engine: str
    precision: str
    predictor: Predictor
    features: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def first_labels(self, labels: Sequence[str] | None, templates: Sequence[str] | None) -> list[str]:
        """The label that `classify` would put first, of each image."""
        prompts = self.predictor.prompts(labels, templates)
        targets = self.predictor.label_targets(prompts)
        answers = (
            self.predictor.top_k_labels(feature, targets, prompts.labels, 1) for feature in self.features
        )
        return [answer[0]["label"] for answer in answers]


def check_engines(
    predictor: Predictor,
    images: Sequence[NamedImage],
    labels: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
) -> Check:
    """Measure every engine and precision on images, which are prepared once for all of them.

    Args:
        predictor: of the module, with its weights and how images are read; its own engine is not looked at.
        images: each with the name that an error calls it by; one that cannot be read is left out.
        labels: what answers are chosen from; None for the module's own.
        templates: of the labels, see `Predictor.classify`.

    Raises:
        RequestError: no image can be read.
        ClipError: the labels or the weights cannot be used.
    """
    asked = predictor.prompts(labels, templates)  # bad labels end it before the work
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
    return Check(reference.engine, len(first), len(timed), len(asked.labels), rows, refused, errors)


def _candidates(predictor: Predictor) -> tuple[list[_Candidate], dict[str, str]]:
    """What runs here, the reference first, compiled now where it must be; what does not, and why."""
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
                refused[f"{name}, {precision}"] = "it cannot be compiled here: a warning says why"
    return candidates, refused


def _encode(
    candidates: Sequence[_Candidate], predictor: Predictor, images: Sequence[NamedImage]
) -> tuple[np.ndarray | None, dict[str, str]]:
    """Give each candidate the features of all images; returns a batch of prepared ones, and errors."""
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
    """Prepared images, float32 [n, 3, R, R], n up to `BATCH_SIZE`; the others go into `errors`."""
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
    """Give each candidate its seconds for a batch, in turns: other work of the machine falls on all alike."""
    with progress_bar(total=1 + _ROUNDS, unit="round") as bar:
        for turn in range(1 + _ROUNDS):
            for candidate in candidates:
                start = time.perf_counter()
                candidate.predictor.encode_image(batch)
                if turn:
                    candidate.seconds.append(time.perf_counter() - start)
            bar.update()
