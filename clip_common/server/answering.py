"""Answer requests in batches: their images are encoded together, and so are their texts.

A result does not depend on the other requests of the batch. A request that fails gets its own error, and does
not affect the others. Long work is done before, for each request by itself: preprocessing images, and
encoding many texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from ..errors import ClipError, ImageError
from ..inputs import check_texts
from ..predictor import Predictor
from ..system.prefetch import prefetch
from ..text.prompts import Prompts
from ..zero_shot.cached_labels import LabelTargets
from ..zero_shot.explain import heat_maps
from ..zero_shot.label_embeddings import Encode
from ..zero_shot.scoring import SOFTMAX, Answer, Scoring, l2_normalize, top_k_labels
from .request import FEW_TEXTS, PredictRequest

_AT_ONCE = 64  # images per part of a batch; deadlines are checked between parts
_TEXTS_AN_IMAGE = 4  # number of texts that cost as much as an image
_COPIES_AT_ONCE = 32  # masked copies per batch, for heat maps
_DIGITS = 6  # decimals of a heat map


@dataclass
class Job:
    """A request with its intermediate results.

    Attributes:
        work: the request.
        prompts: labels and templates, to classify.
        pixels: preprocessed images, float32 [3, R, R] each.
        encoded: features of the texts to embed, [n, d], if they are computed already.
        targets: label embeddings, if they are computed already.
        scoring: kind of score, and thresholds.
        tokens: number of tokens of the texts to embed, if the request asks for it.
    """

    work: PredictRequest
    prompts: Prompts | None
    pixels: list[np.ndarray]
    encoded: np.ndarray | None = None
    targets: LabelTargets | None = None
    scoring: Scoring = SOFTMAX
    tokens: int | None = None

    @property
    def texts(self) -> list[str]:
        """The texts to embed."""
        return list(self.work.texts or ())

    @property
    def is_encoded(self) -> bool:
        """Whether all texts have been encoded."""
        return self.encoded is not None or self.targets is not None

    @property
    def texts_to_encode(self) -> int:
        """Number of texts or prompts that have not been encoded."""
        if self.is_encoded:
            return 0
        return len(self.prompts.labels) * len(self.prompts.templates) if self.prompts else len(self.texts)

    @property
    def cost(self) -> float:
        """Estimated cost of encoding, in units of one image."""
        return len(self.pixels) + self.texts_to_encode / _TEXTS_AN_IMAGE


def answer(predictor: Predictor, works: Sequence[PredictRequest]) -> list[Any]:
    """Answer requests: for each, the `results` in plain JSON types, or its `ClipError`."""
    jobs: list[Job | ClipError] = []
    for work in works:
        try:
            jobs.append(_prepared(predictor, work))
        except ClipError as error:
            jobs.append(error)
    results = iter(answer_jobs(predictor, [job for job in jobs if isinstance(job, Job)]))
    return [_explained(predictor, job, next(results)) if isinstance(job, Job) else job for job in jobs]


def answer_one(predictor: Predictor, work: PredictRequest) -> Any:
    """Answer one request.

    Raises:
        ClipError: the request cannot be answered.
    """
    (result,) = answer(predictor, [work])
    if isinstance(result, ClipError):
        raise result
    return result


def checked(predictor: Predictor, work: PredictRequest) -> Job:
    """Check a request and the size of its response. Images are not preprocessed yet.

    Raises:
        ClipError: the request is invalid, or its response would be too large.
    """
    if work.use_gpu:  # report a missing GPU before images are read
        from ..engines.paddle_engine import require_gpu  # Paddle takes seconds to import

        require_gpu()
    if work.task == "embed":
        texts = check_texts(work.texts) if work.texts is not None else []
        work.limits.check_embeddings(len(work.images) + len(texts), predictor.record.config.embed_dim)
        return Job(work, None, [], tokens=predictor.count_tokens(texts) if work.count_tokens else None)
    prompts, scoring = predictor.labels.prompts_and_scoring(
        work.labels, work.templates, work.scores, work.thresholds
    )
    work.limits.check_prompts(prompts)
    work.limits.check_scores(len(work.images), work.top_k, prompts.labels)
    work.limits.check_heat_maps(work.explain, predictor.record.config.image_resolution)
    known = predictor.labels.known_targets(prompts)
    return Job(work, prompts, [], targets=known, scoring=scoring)


def encode_ahead(predictor: Predictor, job: Job, encode: Encode) -> None:
    """Encode the texts of a job if it has many; a few texts are encoded together with those of its batch."""
    if job.texts_to_encode <= FEW_TEXTS:
        return
    if job.prompts:
        job.targets = predictor.labels.targets(job.prompts, encode=encode)
    else:
        job.encoded = encode(job.texts)


def add_heat_maps(
    predictor: Predictor,
    job: Job,
    results: list[Answer],
    encode: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[Any]:
    """Add heat maps of the best labels to the results of a job.

    Args:
        predictor: the module.
        job: the job, which has been answered.
        results: its results.
        encode: see `heat_maps`.
    """
    assert job.prompts is not None and job.targets is not None
    ((answer,), (pixels,)) = results, job.pixels
    best = answer[: job.work.explain]
    if not best:
        return results
    chosen = [job.prompts.labels.index(item["label"]) for item in best]
    heats = heat_maps(predictor, pixels, job.targets, chosen, _COPIES_AT_ONCE, job.work.use_gpu, encode)
    squashed = predictor.preprocess.settings.resize == "squash"
    explained = [
        {**item, "heat": _rounded(heat), "heat_of": "whole" if squashed else "centre"}
        for item, heat in zip(best, heats, strict=True)
    ]
    return [[*explained, *answer[len(best) :]]]


def _rounded(heat: np.ndarray) -> list[list[float]]:
    return np.round(heat.astype(np.float64), _DIGITS).tolist()


def _explained(predictor: Predictor, job: Job, result: Any) -> Any:
    if not job.work.explain or isinstance(result, ClipError):
        return result
    try:
        return add_heat_maps(predictor, job, result)
    except ClipError as error:
        return error


def _prepared(predictor: Predictor, work: PredictRequest) -> Job:
    job = checked(predictor, work)

    def at_once(texts: Sequence[str]) -> np.ndarray:
        return predictor.text_features(texts, work.batch_size, work.use_gpu)

    encode_ahead(predictor, job, at_once)
    with closing(prefetch(predictor.prepare, work.images, work.batch_size)) as prepared:
        job.pixels += map(readable, prepared)
    return job


def readable(pixels: np.ndarray | ImageError) -> np.ndarray:
    """Return a preprocessed image, or raise its error."""
    if isinstance(pixels, ImageError):
        raise pixels
    return pixels


def answer_jobs(
    predictor: Predictor, jobs: Sequence[Job], late: Callable[[int], ClipError | None] = lambda _: None
) -> list[Any]:
    """Answer jobs, in parts of limited size.

    Args:
        predictor: the module.
        jobs: the jobs, with preprocessed images.
        late: called before each part with the index of a job: its error if its deadline has passed.
    """
    results: list[Any] = [None] * len(jobs)
    for part in _parts(jobs):
        for place in part:
            results[place] = late(place)
        in_time = [place for place in part if results[place] is None]
        for use_gpu in (False, True):
            group = [place for place in in_time if jobs[place].work.use_gpu is use_gpu]
            if group:
                answers = _answer(predictor, [jobs[place] for place in group], use_gpu)
                for place, result in zip(group, answers, strict=True):
                    results[place] = result
    return results


def _parts(jobs: Sequence[Job]) -> Iterator[list[int]]:
    """Divide jobs into parts of limited cost, of at least one job each; yields their indices."""
    part: list[int] = []
    cost = 0.0
    for place, job in enumerate(jobs):
        cost += job.cost
        if part and cost > _AT_ONCE:
            yield part
            part, cost = [], job.cost
        part.append(place)
    if part:
        yield part


def _answer(predictor: Predictor, jobs: list[Job], use_gpu: bool) -> list[Any]:
    """Answer jobs together; if that fails, each by itself, so that only the faulty one gets the error."""
    try:
        return _together(predictor, jobs, use_gpu)
    except ClipError as error:
        if len(jobs) == 1:
            return [error]
        return list(chain.from_iterable(_answer(predictor, [job], use_gpu) for job in jobs))


def _together(predictor: Predictor, jobs: list[Job], use_gpu: bool) -> list[Any]:
    batch_size = max(job.work.batch_size for job in jobs)
    known = _text_features(predictor, jobs, batch_size, use_gpu)

    def encode(texts: Sequence[str]) -> np.ndarray:
        return np.stack([known[text] for text in texts])

    pixels = list(chain.from_iterable(job.pixels for job in jobs))
    parts = [pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size)]
    features = chain.from_iterable(predictor.encode_image(np.stack(part), use_gpu) for part in parts)
    answers: list[Any] = []
    for job in jobs:
        images = [next(features) for _ in job.pixels]
        if job.prompts is None:
            texts = job.encoded if job.encoded is not None or not job.texts else encode(job.texts)
            answers.append(_embedding(job, images, texts))
            continue
        if job.targets is None:
            job.targets = predictor.labels.targets(job.prompts, encode=encode)
        scale, labels, top_k = predictor.logit_scale, job.prompts.labels, job.work.top_k
        answers.append([top_k_labels(one, job.targets, scale, labels, top_k, job.scoring) for one in images])
    return answers


def _text_features(
    predictor: Predictor, jobs: list[Job], batch_size: int, use_gpu: bool
) -> dict[str, np.ndarray]:
    """Features of all texts and prompts that have not been encoded, by text."""
    wanted: dict[str, None] = {}
    for job in jobs:
        if job.is_encoded:
            continue
        wanted |= dict.fromkeys(job.prompts.texts() if job.prompts else job.texts)
    if not wanted:
        return {}
    return dict(zip(wanted, predictor.text_features(list(wanted), batch_size, use_gpu), strict=True))


def _embedding(job: Job, images: list[np.ndarray], texts: np.ndarray | None) -> dict[str, Any]:
    finish = l2_normalize if job.work.normalize else np.asarray
    results = {
        "images": finish(np.stack(images)).tolist() if images else None,
        "texts": None if texts is None else finish(texts).tolist(),
    }
    return results if job.tokens is None else results | {"tokens": job.tokens}
