"""Requests answered together get what they get alone, and a faulty one only its own error."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clip_common.config import pretrained
from clip_common.errors import BusyError, ClipError, ImageError, LabelError, LimitError, RequestError
from clip_common.predictor import Predictor
from clip_common.server.answering import Job, answer, answer_jobs, checked
from clip_common.server.limits import Limits
from clip_common.server.request import PredictRequest, RequestBody
from clip_common.zero_shot.thresholds import Thresholds
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
    {"images": [example("dog")], "labels": ["a dog", "a tree"], "scores": "cosine", "thresholds": -1},
    {"images": [example("dog")], "labels": ["a dog", "a tree"], "scores": "cosine", "thresholds": [1, 1]},
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
    ({"images": [example("dog")], "labels": ["a dog", "A Dog"]}, LabelError, "reads the same"),
    ({"texts": []}, ClipError, "texts is empty"),
    ({"texts": ["a", " "]}, ClipError, r"texts\[1\] is blank"),
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
    monkeypatch.setattr(fresh._load().labels.computed, "find", lambda _prompts: None)
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


def test_the_content_of_a_file_of_thresholds(predictor: Predictor) -> None:
    values = {"a dog": -1.0, "a tree": 1.0, "a house": -1.0}
    made = Thresholds("clip_mini", predictor.weights_sha256, ("the {}",), "cosine", values)
    body: dict[str, Any] = {"images": [example("dog")], "thresholds": made.document()}
    (result,) = answer(predictor, works([body]))
    assert result == predictor.classify(paths=[ROOT / "examples" / "dog.png"], thresholds=made)
    other = replace(made, weights_sha256="0" * 64).document()
    (error,) = answer(predictor, works([{**body, "thresholds": other}]))
    assert isinstance(error, RequestError) and "fit thresholds to this one" in str(error)
    many = replace(made, values=dict.fromkeys(map(str, range(300)), 0.1)).document()
    (work,) = works([{**body, "thresholds": many}])
    assert work.kind == "texts"  # so many labels wait with their like


# --- limits that only the module knows ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "limits", "words"),
    [
        ({"templates": ["a {}", "the {}"]}, Limits(prompts=400), "has 776 prompts, at most 400"),
        ({"templates": "openai"}, Limits(prompts=10_000), "has 31040 prompts, at most 10000"),
        ({"templates": "{}" * 100}, Limits(characters=300), "in it has .* characters, at most 300"),
        ({"top_k": 10**9}, Limits(answer_bytes=5_000), "the answer would have about .* bytes, at most 5,000"),
        ({"labels": ["x" * 900, "y"], "top_k": 2}, Limits(answer_bytes=900), "the answer would have"),
        ({"explain": 10}, Limits(answer_bytes=6_000_000), "the answer would have about 6,912,000 bytes"),
    ],
)
def test_what_is_left_out_counts_as_what_it_stands_for(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any], limits: Limits, words: str
) -> None:
    assert len(predictor.prompts(None, None).labels) == 388
    monkeypatch.setattr(Predictor, "text_features", lambda *_: pytest.fail("it is encoded"))
    work = RequestBody.parse({"images": [example("dog")], **body}).work(limits)
    (refused,) = answer(predictor, [work])
    assert isinstance(refused, LimitError)
    with pytest.raises(LimitError, match=words):
        raise refused


def test_embeddings_count_too(predictor: Predictor) -> None:
    body = RequestBody.parse({"images": [example("dog")], "texts": ["a", "b"]})
    (refused,) = answer(predictor, [body.work(Limits(answer_bytes=3 * 512 * 24 - 1))])
    assert isinstance(refused, LimitError)
    (allowed,) = answer(predictor, [body.work(Limits(answer_bytes=3 * 512 * 24))])
    assert len(json.dumps(allowed)) < 3 * 512 * 24


def test_an_answer_is_no_larger_than_estimated(predictor: Predictor) -> None:
    labels = ["a dog", "狗" * 20, "\x01 x" * 20, "plain", '"' * 50]
    body = RequestBody.parse({"images": [example("dog")] * 3, "labels": labels, "top_k": 5})
    (results,) = answer(predictor, [body.work(Limits())])
    size = len(json.dumps(results).encode())
    (refused,) = answer(predictor, [body.work(Limits(answer_bytes=size))])
    assert isinstance(refused, LimitError)


def test_who_is_late_is_told_so_between_the_parts_of_a_batch(predictor: Predictor) -> None:
    jobs = [Job(work, None, [np.zeros((3, 240, 240), np.float32)] * 40) for work in works([BODIES[4]] * 3)]
    asked: list[int] = []

    def late(place: int) -> ClipError | None:
        asked.append(place)
        return BusyError("late") if place == 1 else None

    sizes = []

    def noted(pixels: np.ndarray, use_gpu: bool) -> np.ndarray:
        sizes.append((len(pixels), list(asked)))
        return np.ones((len(pixels), 512), np.float32)

    predictor_with_notes = Predictor(predictor.record)
    predictor_with_notes.encode_image = noted  # type: ignore[method-assign, assignment]
    for job in jobs:
        job.encoded = np.ones((1, 512), np.float32)
    results = answer_jobs(predictor_with_notes, jobs, late)
    assert [isinstance(result, BusyError) for result in results] == [False, True, False]
    assert sizes == [(32, [0]), (8, [0]), (32, [0, 1, 2]), (8, [0, 1, 2])]


def test_a_gpu_that_is_not_here_is_refused_without_moving_the_model(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are checked in other threads than the one that the model runs in."""
    monkeypatch.setattr(Predictor, "engine", lambda *_, **__: pytest.fail("an engine was asked for"))
    (work,) = works([{"images": ["aGk="], "labels": ["a"], "use_gpu": True}])
    with pytest.raises(RequestError, match="use_gpu is set"):
        checked(predictor, work)
