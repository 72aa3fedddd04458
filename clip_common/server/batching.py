"""Requests to answers, several at once: their images go through the model together, and so do their texts.

An answer does not depend on what was asked beside it; a request that cannot be answered gets its error, and
costs the others nothing but time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from ..errors import ClipError, ImageError
from ..inputs import check_texts
from ..predictor import Predictor
from ..text.prompts import Prompts
from ..zero_shot.label_embeddings import TEXTS_AT_ONCE
from ..zero_shot.scoring import l2_normalize
from .request import PredictRequest

Features = dict[str, np.ndarray]


def answer(predictor: Predictor, works: Sequence[PredictRequest]) -> list[Any]:
    """The `results` of each request's reply, in plain JSON types, or the `ClipError` that it gets."""
    answers: dict[int, Any] = {}
    for use_gpu in (False, True):
        places = [i for i, work in enumerate(works) if work.use_gpu is use_gpu]
        if not places:
            continue
        group = [works[i] for i in places]
        answers |= zip(places, _answer(predictor, group, use_gpu), strict=True)
    return [answers[i] for i in range(len(works))]


def answer_one(predictor: Predictor, work: PredictRequest) -> Any:
    """The `results` of one request.

    Raises:
        ClipError: the error that it gets.
    """
    (result,) = answer(predictor, [work])
    if isinstance(result, ClipError):
        raise result
    return result


def _answer(predictor: Predictor, works: list[PredictRequest], use_gpu: bool) -> list[Any]:
    """Together; where that fails, each alone, so that the error reaches only the request it is about."""
    try:
        return _together(predictor, works, use_gpu)
    except ClipError as error:
        if len(works) == 1:
            return [error]
        return list(chain.from_iterable(_answer(predictor, [work], use_gpu) for work in works))


def _together(predictor: Predictor, works: list[PredictRequest], use_gpu: bool) -> list[Any]:
    batch_size = max(work.batch_size for work in works)
    prompts = [
        predictor.prompts(work.labels, work.templates) if work.task == "classify" else None for work in works
    ]
    texts = [check_texts(work.texts) if work.texts is not None else [] for work in works]
    encoded = _text_features(predictor, texts, [p for p in prompts if p], batch_size, use_gpu)
    vectors = [predictor.label_embeddings(p, use_gpu, known=encoded) if p else None for p in prompts]
    images = list(chain.from_iterable(work.images for work in works))
    features = chain.from_iterable(predictor.image_features(images, batch_size, use_gpu) if images else ())
    answers: list[Any] = []
    for work, own_prompts, own_vectors in zip(works, prompts, vectors, strict=True):
        items = [next(features) for _ in work.images]
        own = [item for item in items if not isinstance(item, ImageError)]
        if len(own) < len(items):
            answers.append(next(item for item in items if isinstance(item, ImageError)))
        elif own_prompts is not None and own_vectors is not None:
            labels = own_prompts.labels
            answers.append(
                [predictor.top_k_labels(feature, own_vectors, labels, work.top_k) for feature in own]
            )
        else:
            answers.append(_embedding(work, own, encoded))
    return answers


def _text_features(
    predictor: Predictor, texts: list[list[str]], prompts: list[Prompts], batch_size: int, use_gpu: bool
) -> Features:
    """Features of all texts, and of all prompts whose label vectors are not known, each text once."""
    wanted = dict.fromkeys(chain.from_iterable(texts))
    for prompt in prompts:  # larger label sets are encoded by themselves, in parts
        small = len(prompt.labels) * len(prompt.templates) <= TEXTS_AT_ONCE
        if small and not predictor.knows(prompt):
            wanted |= dict.fromkeys(prompt.texts())
    if not wanted:
        return {}
    return dict(zip(wanted, predictor.text_features(list(wanted), batch_size, use_gpu), strict=True))


def _embedding(work: PredictRequest, images: list[np.ndarray], encoded: Features) -> dict[str, list | None]:
    finish = l2_normalize if work.normalize else np.asarray
    texts = None if work.texts is None else np.stack([encoded[text] for text in work.texts])
    return {
        "images": finish(np.stack(images)).tolist() if images else None,
        "texts": None if texts is None else finish(texts).tolist(),
    }
