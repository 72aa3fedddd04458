"""Kinds of score, thresholds in every form, and the file of fitted ones. Without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_common.errors import RequestError
from clip_common.zero_shot.scoring import (
    Scoring,
    _warn_of_more,
    check_score_kind,
    cosines,
    nearest_label,
    top_k_labels,
)
from clip_common.zero_shot.thresholds import FORMAT, Thresholds, read_given, values_of

LABELS = ["a dog", "a cat", "a car"]
FEATURE = np.array([3.0, 4.0, 0.0])  # its cosines with the axes: 0.6, 0.8, 0
AXES = np.eye(3)
FITTED = Thresholds("clip_mini", "0" * 64, ("a photo of a {}.",), "cosine", {"a dog": 0.25, "a cat": -0.1})


def kept(scoring: Scoring, top_k: int = 5) -> list[tuple[str, Any]]:
    answer = top_k_labels(FEATURE, AXES, 10.0, LABELS, top_k, scoring)
    return [(item["label"], pytest.approx(item["score"])) for item in answer]


# --- scores --------------------------------------------------------------------------------------------


def test_cosines_are_of_one_label_alone() -> None:
    assert kept(Scoring("cosine")) == [("a cat", 0.8), ("a dog", 0.6), ("a car", 0.0)]
    alone = top_k_labels(FEATURE, AXES[:1], 10.0, LABELS[:1], 5, Scoring("cosine"))
    assert alone[0]["score"] == pytest.approx(0.6)


def test_cosines_of_vectors_that_are_not_of_unit_length() -> None:
    found = cosines(FEATURE[None] * 7, AXES * [[2.0], [0.1], [5.0]])
    np.testing.assert_allclose(found, [[0.6, 0.8, 0.0]], atol=1e-12)
    assert cosines(FEATURE.astype(np.float32), FEATURE[None].astype(np.float32)).max() <= 1


def test_several_labels_one_or_none_of_them_are_true() -> None:
    assert kept(Scoring("cosine", np.full(3, 0.5))) == [("a cat", 0.8), ("a dog", 0.6)]
    assert kept(Scoring("cosine", np.array([0.5, 0.9, 0.5]))) == [("a dog", 0.6)]
    assert kept(Scoring("cosine", np.full(3, 0.9))) == []


def test_top_k_is_of_the_labels_that_are_true() -> None:
    assert kept(Scoring("cosine", np.array([0.5, 0.9, -1.0])), top_k=1) == [("a dog", 0.6)]


def test_labels_that_top_k_leaves_out_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    _warn_of_more.cache_clear()
    for _ in range(3):
        assert len(kept(Scoring("cosine", np.full(3, -1.0)), top_k=2)) == 2
        assert len(kept(Scoring("cosine", np.full(3, -1.0)), top_k=1)) == 1  # the best one, if any is true
        assert len(kept(Scoring("cosine"), top_k=2)) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "more labels reach their thresholds than top_k=2 returns: raise it for all"
    ]


def test_a_threshold_is_reached_by_the_score_itself() -> None:
    score = top_k_labels(FEATURE, AXES, 10.0, LABELS, 1, Scoring("cosine"))[0]["score"]
    assert len(kept(Scoring("cosine", np.full(3, score)))) == 1


def test_thresholds_of_softmax() -> None:
    assert [label for label, _ in kept(Scoring("softmax", np.full(3, 0.5)))] == ["a cat"]
    assert kept(Scoring("softmax", np.full(3, 0.99))) == []


def test_the_nearest_label_is_that_which_lacks_least() -> None:
    found = nearest_label(FEATURE, AXES, 10.0, LABELS, Scoring("cosine", np.array([0.7, 0.95, 0.9])))
    assert found == {"label": "a dog", "score": pytest.approx(0.6), "threshold": 0.7}


def test_kinds_of_score() -> None:
    assert [check_score_kind(given) for given in (None, "softmax", "cosine")] == [
        "softmax",
        "softmax",
        "cosine",
    ]
    for given in ("Cosine", "", 5, ["cosine"], True):
        with pytest.raises(RequestError, match=r"scores is .*, expected 'softmax' or 'cosine'"):
            check_score_kind(given)


# --- thresholds as a call gives them ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0.2, [0.2, 0.2, 0.2]),
        (0, [0, 0, 0]),
        (-1, [-1, -1, -1]),
        (np.float32(0.5), [0.5, 0.5, 0.5]),
        (np.array(0.5), [0.5, 0.5, 0.5]),
        ([0.1, -0.2, 1], [0.1, -0.2, 1.0]),
        (np.array([0.1, 0.2, 0.3]), [0.1, 0.2, 0.3]),
        (iter((0.1, 0.2, 0.3)), [0.1, 0.2, 0.3]),
        ({"a car": 0.3, "a dog": 0.1, "a cat": 0.2, "a tree": 0.4}, [0.1, 0.2, 0.3]),
        (Thresholds("m", "0", (), "cosine", dict.fromkeys(LABELS, 0.2)), [0.2, 0.2, 0.2]),
    ],
)
def test_thresholds_are_taken_in_every_form(given: Any, expected: list[float]) -> None:
    found = values_of(given, LABELS, "cosine")
    assert found.dtype == np.float64
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (float("nan"), "thresholds is nan, expected a number from -1 to 1, as cosine scores are"),
        (float("inf"), "thresholds is inf"),
        (25, "thresholds is 25"),
        (-1.1, "thresholds is -1.1"),
        pytest.param(10**5000, "thresholds is a huge number", id="huge"),
        (True, "thresholds is True"),
        ("0.2", "thresholds is '0.2'"),
        ({0.1, 0.2, 0.3}, "thresholds is {"),
        ([0.1, 0.2], "thresholds has length 2, for 3 labels"),
        ([0.1] * 4, "thresholds has length 4, for 3 labels"),
        ([], "thresholds has length 0"),
        ([0.1, None, 0.2], r"thresholds\[1\] is None"),
        ([0.1, 0.2, float("nan")], r"thresholds\[2\] is nan"),
        ([[0.1, 0.2, 0.3]], r"thresholds\[0\] is \[0.1"),
        (np.full((2, 3), 0.1), r"thresholds\[0\] is array"),
        ({"a dog": 0.1, "a cat": 0.2}, "thresholds has none for the label 'a car'"),
        ({"a dog": 0.1, "a cat": "0.2", "a car": 0.1}, r"thresholds\['a cat'\] is '0.2'"),
        ({}, "thresholds has none for the label 'a dog'"),
        (FITTED, "thresholds has none for the label 'a car'"),
    ],
)
def test_what_is_no_threshold_is_said(given: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        values_of(given, LABELS, "cosine")


def test_softmax_scores_are_never_negative() -> None:
    with pytest.raises(RequestError, match=r"thresholds is -0\.1, expected a number from 0 to 1, as softmax"):
        values_of(-0.1, LABELS, "softmax")


# --- the file --------------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "thresholds.json"
    FITTED.write(path, {"images": 20}, {"a dog": {"positives": 7}})
    assert Thresholds.read(path) == Thresholds.read(str(path)) == read_given(path) == FITTED
    document = json.loads(path.read_text("utf-8"))
    assert document["images"] == 20
    assert document["labels"]["a dog"] == {"threshold": 0.25, "positives": 7}
    assert read_given(document) == FITTED
    assert read_given({"a dog": 0.2}) == {"a dog": 0.2}


def changed(**changes: Any) -> dict[str, Any]:
    return {
        "format": FORMAT, "module": "clip_mini", "weights_sha256": "0" * 64, "templates": ["a {}"],
        "scores": "cosine", "labels": {"a dog": {"threshold": 0.25}}, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[0.2, 0.3]", "not a file of thresholds"),
        ('{"a dog": 0.2}', "not a file of thresholds"),
        (changed(format="clip-hub thresholds 2"), "its format is 'clip-hub thresholds 2', expected"),
        (changed(module=None), "'module' is missing"),
        (changed(weights_sha256=5), "'weights_sha256' is missing or not as"),
        (changed(templates="a {}"), "'templates' is missing or not as"),
        (changed(templates=["a"]), "its templates must be texts with {} in them"),
        (changed(templates=[5]), "its templates must be texts"),
        (changed(scores="dot"), "scores is 'dot'"),
        (changed(labels=[]), "'labels' is missing or not as"),
        (changed(labels={}), "labels is empty"),
        (changed(labels={" ": {"threshold": 0.1}}), "label 0 is blank"),
        (changed(labels={"a": {"threshold": 0.1}, "a ": {"threshold": 0.1}}), "given twice"),
        (changed(labels={"a": 0.1}), "the threshold of 'a' is None"),
        (changed(labels={"a": {"threshold": "0.1"}}), "the threshold of 'a' is '0.1'"),
        (changed(labels={"a": {"threshold": float("nan")}}), "the threshold of 'a' is nan"),
        (changed(scores="softmax", labels={"a": {"threshold": -0.1}}), "from 0 to 1, as softmax"),
    ],
)
def test_what_is_no_file_of_thresholds_is_said(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(RequestError) as error:
        Thresholds.read(path)
    assert words in str(error.value)
    if "scores is" not in words:
        assert str(path) in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"nowhere.json: cannot be read \(No such file"):
        Thresholds.read(tmp_path / "nowhere.json")


def test_thresholds_of_another_model_are_refused() -> None:
    FITTED.require_module("clip_mini")
    FITTED.require_weights("0" * 64)
    with pytest.raises(RequestError, match="thresholds are for clip_mini, and this is clip_rn50: scores of"):
        FITTED.require_module("clip_rn50")
    with pytest.raises(RequestError, match="with the weights 000000000000, and these are 111111111111: sco"):
        FITTED.require_weights("1" * 64)
