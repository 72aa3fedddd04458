"""Requests answered together get what they get alone, and a faulty one only its own error."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from clip_common.config import pretrained
from clip_common.errors import ClipError, ImageError, LabelError
from clip_common.predictor import Predictor
from clip_common.server.batching import answer
from clip_common.server.limits import Limits
from clip_common.server.request import PredictRequest, RequestBody
from tests.support.answers import assert_same
from tests.support.broken_images import PALETTE_THEN_COLOURS
from tests.support.paths import ROOT


def example(name: str) -> str:
    return base64.b64encode((ROOT / "examples" / f"{name}.png").read_bytes()).decode()


BODIES: list[dict[str, Any]] = [
    {"images": [example("diagram")], "labels": ["a diagram", "a dog", "a cat"]},
    {"texts": ["a dog", "a bicycle", "a dog"]},
    {"images": [example("dog"), example("cat")], "labels": ["dog", "cat"], "templates": ["a {}", "the {}"]},
    {"images": [example("bicycle")]},
    {"images": [example("cat")], "texts": ["a cat"], "normalize": False},
    {"images": [example("dog")], "labels": ["a dog", "a tree", "a house"], "top_k": 1, "batch_size": 1},
]
FAULTY: list[tuple[dict[str, Any], type[ClipError], str]] = [
    ({"images": [example("dog"), "aGk="], "labels": ["a"]}, ImageError, r"images\[1\]: not an image"),
    (
        {"images": [base64.b64encode(PALETTE_THEN_COLOURS).decode()], "labels": ["a"]},
        ImageError,
        r"images\[0\]: cannot be",
    ),
    ({"texts": ["word " * 100]}, LabelError, "the limit is 77"),
    ({"images": [example("dog")], "labels": ["a", "a"]}, LabelError, "given twice"),
    ({"texts": []}, ClipError, "texts is empty"),
]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(pretrained("clip_mini"))


def works(bodies: list[dict[str, Any]]) -> list[PredictRequest]:
    return [RequestBody.parse(body).work(Limits()) for body in bodies]


def test_together_is_as_alone(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    together = answer(predictor, works(BODIES))
    # In another process nothing is in memory: alone, each computes its own label vectors.
    fresh = Predictor(pretrained("clip_mini"))
    monkeypatch.setattr(fresh._load().label_embeddings, "find", lambda _prompts: None)
    for result, work in zip(together, works(BODIES), strict=True):
        assert_same(result, answer(fresh, [work])[0])


def test_a_faulty_request_costs_the_others_nothing(predictor: Predictor) -> None:
    expected = answer(predictor, works(BODIES))
    mixed = BODIES + [body for body, _, _ in FAULTY]
    order = np.random.default_rng(0).permutation(len(mixed))
    results = dict(zip(order, answer(predictor, works([mixed[i] for i in order])), strict=True))
    for i, wanted in enumerate(expected):
        assert_same(results[i], wanted)
    for i, (_, kind, words) in enumerate(FAULTY, start=len(BODIES)):
        assert isinstance(results[i], kind)
        with pytest.raises(kind, match=words):
            raise results[i]


def test_texts_of_a_batch_are_encoded_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = predictor.engine()
    encode, seen = engine.encode_text, []

    def counted(ids: np.ndarray, batch_size: int) -> np.ndarray:
        seen.append(len(ids))
        return encode(ids, batch_size)

    monkeypatch.setattr(engine, "encode_text", counted)
    bodies = [{"images": [example("dog")], "labels": [f"thing {k}", "an unseen thing"]} for k in range(3)]
    answer(predictor, works([*bodies, {"texts": ["thing 0", "another"]}]))
    assert seen == [5]
    answer(predictor, works(bodies))  # known label vectors
    assert seen == [5]
