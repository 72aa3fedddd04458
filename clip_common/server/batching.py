"""Requests to answers, several at once: their images go through the model together, and so do their texts.

An answer does not depend on what was asked beside it; a request that cannot be answered gets its error, and
costs the others nothing but time. What may take long is done before that, request by request: images become
pixels, and many texts features.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np

from ..errors import ClipError, ImageError
from ..inputs import check_texts
from ..predictor import Predictor
from ..system.prefetch import prefetch
from ..text.prompts import Prompts
from ..zero_shot.cached_labels import LabelTargets
from ..zero_shot.explain import heat_maps
from ..zero_shot.label_embeddings import Encode
from ..zero_shot.scoring import SOFTMAX, Answer, Scoring, l2_normalize
from .request import FEW_TEXTS, PredictRequest

_AT_ONCE = 64  # images of one run through the model; deadlines are looked at in between
_TEXTS_AN_IMAGE = 4  # take about as long
_COPIES_AT_ONCE = 32  # of an image that is explained
_DIGITS = 6  # of a place of a heat map

Given = TypeVar("Given")


class Batcher(Generic[Given]):
    """Batches, one after another: what comes while one is worked on is the next.

    Ray Serve's own forms a batch every few milliseconds, also while the model is busy: under load its batches
    are small, and queue behind each other.

    Args:
        work: the results of a batch, one for each.
        most: how many are in one.
        wait: seconds that the first one waits for others, where nothing is worked on.
    """

    def __init__(self, work: Callable[[list[Given]], Awaitable[list[Any]]], most: int, wait: float) -> None:
        self._work, self._most, self._wait = work, most, wait
        self._waiting: deque[tuple[Given, asyncio.Future]] = deque()
        self._running: asyncio.Task | None = None

    async def ask(self, given: Given) -> Any:
        """The result of one; raises what its batch raises."""
        result = asyncio.get_running_loop().create_future()
        self._waiting.append((given, result))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await result

    async def _run(self) -> None:
        """Work until nobody waits; where even this ends with an error, nobody waits any more either."""
        try:
            await asyncio.sleep(self._wait)
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                if batch := [(given, result) for given, result in batch if not result.done()]:
                    await self._answer(batch)
        finally:
            self._running = None
            while self._waiting:
                self._waiting.popleft()[1].cancel()

    async def _answer(self, batch: list[tuple[Given, asyncio.Future]]) -> None:
        """Give results to those who still wait for them."""
        try:
            results = await self._work([given for given, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        finally:
            for _, future in batch:
                future.cancel()  # nothing for one that is done


@dataclass
class Job:
    """A request on its way through the model.

    Attributes:
        work: what is asked.
        prompts: what its images are compared with, to classify.
        pixels: its images, prepared, float32 [3, R, R].
        encoded: features of its texts to embed, [n, d], where they were made before.
        targets: what its images are compared with, where that was made before.
        scoring: how its labels are scored, and which are true.
        tokens: of its texts to embed, where they are asked for.
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
        """Those to embed."""
        return list(self.work.texts or ())

    @property
    def is_encoded(self) -> bool:
        """Whether nothing is left for the text tower."""
        return self.encoded is not None or self.targets is not None

    @property
    def texts_to_encode(self) -> int:
        """How many texts, or prompts, are left for the text tower."""
        if self.is_encoded:
            return 0
        return len(self.prompts.labels) * len(self.prompts.templates) if self.prompts else len(self.texts)

    @property
    def cost(self) -> float:
        """Of its run through the model, in images."""
        return len(self.pixels) + self.texts_to_encode / _TEXTS_AN_IMAGE


def answer(predictor: Predictor, works: Sequence[PredictRequest]) -> list[Any]:
    """The `results` of each request's reply, in plain JSON types, or the `ClipError` that it gets."""
    jobs: list[Job | ClipError] = []
    for work in works:
        try:
            jobs.append(_prepared(predictor, work))
        except ClipError as error:
            jobs.append(error)
    results = iter(answer_jobs(predictor, [job for job in jobs if isinstance(job, Job)]))
    return [_explained(predictor, job, next(results)) if isinstance(job, Job) else job for job in jobs]


def answer_one(predictor: Predictor, work: PredictRequest) -> Any:
    """The `results` of one request.

    Raises:
        ClipError: the error that it gets.
    """
    (result,) = answer(predictor, [work])
    if isinstance(result, ClipError):
        raise result
    return result


def checked(predictor: Predictor, work: PredictRequest) -> Job:
    """A request that makes sense, and whose answer is not too large; its images are still to be prepared.

    Raises:
        ClipError: what is wrong with it.
    """
    if work.use_gpu:  # where there is none, that is said before images are read
        from ..engines.paddle_engine import require_gpu  # Paddle takes seconds to import

        require_gpu()
    if work.task == "embed":
        texts = check_texts(work.texts) if work.texts is not None else []
        work.limits.check_embeddings(len(work.images) + len(texts), predictor.record.config.embed_dim)
        return Job(work, None, [], tokens=predictor.count_tokens(texts) if work.count_tokens else None)
    prompts, scoring = predictor.prompts_and_scoring(
        work.labels, work.templates, work.scores, work.thresholds
    )
    work.limits.check_prompts(prompts)
    work.limits.check_scores(len(work.images), work.top_k, prompts.labels)
    work.limits.check_heat_maps(work.explain, predictor.record.config.image_resolution)
    known = predictor.known_label_targets(prompts)
    return Job(work, prompts, [], targets=known, scoring=scoring)


def encode_ahead(predictor: Predictor, job: Job, encode: Encode) -> None:
    """Encode the texts of a job that has many, by `encode`; few wait for those of the same batch."""
    if job.texts_to_encode <= FEW_TEXTS:
        return
    if job.prompts:
        job.targets = predictor.label_targets(job.prompts, job.work.use_gpu, encode=encode)
    else:
        job.encoded = encode(job.texts)


def add_heat_maps(
    predictor: Predictor,
    job: Job,
    results: list[Answer],
    encode: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[Any]:
    """The results of a job that asks why, with maps of its best labels.

    Args:
        predictor: the module.
        job: answered, so that its labels' embeddings are there.
        results: what it was answered.
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
    """A prepared image; one that cannot be read is raised."""
    if isinstance(pixels, ImageError):
        raise pixels
    return pixels


def answer_jobs(
    predictor: Predictor, jobs: Sequence[Job], late: Callable[[int], ClipError | None] = lambda _: None
) -> list[Any]:
    """The results of jobs, a part of them after another.

    Args:
        predictor: the module.
        jobs: prepared.
        late: asked before each part: the error of a job, by its place, for which it is too late.
    """
    results: list[Any] = [None] * len(jobs)
    for part in _parts(jobs):
        in_time = []
        for place in part:
            results[place] = late(place)
            if results[place] is None:
                in_time.append(place)
        for use_gpu in (False, True):
            group = [place for place in in_time if jobs[place].work.use_gpu is use_gpu]
            if group:
                answers = _answer(predictor, [jobs[place] for place in group], use_gpu)
                for place, result in zip(group, answers, strict=True):
                    results[place] = result
    return results


def _parts(jobs: Sequence[Job]) -> Iterator[list[int]]:
    """Places of jobs that go through the model together: up to so many images, but one job at least."""
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
    """Together; where that fails, each alone, so that the error reaches only the request it is about."""
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
            job.targets = predictor.label_targets(job.prompts, use_gpu, encode=encode)
        targets, labels, top_k, scoring = job.targets, job.prompts.labels, job.work.top_k, job.scoring
        answers.append([predictor.top_k_labels(one, targets, labels, top_k, scoring) for one in images])
    return answers


def _text_features(
    predictor: Predictor, jobs: list[Job], batch_size: int, use_gpu: bool
) -> dict[str, np.ndarray]:
    """Features of all texts and prompts that are left to encode, each text once."""
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
