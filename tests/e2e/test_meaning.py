"""clip_mini knows what photographs and drawings mean, through every door: none was trained on."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import numpy as np
import pytest
import requests

from clip_common.config import pretrained
from clip_common.predictor import Predictor
from tests.support.paths import ROOT
from tests.support.processes import free_port, hub_run, start_server, stop_server

EXAMPLES = ROOT / "examples"
# All the drawings of examples/, right or wrong: chosen before the model saw any of them.
NOUNS = ("apple", "bicycle", "car", "cat", "clock", "dog", "guitar", "house", "tree", "umbrella")
# All the photographs of examples/, right or wrong, by what they are called among the module's labels.
PHOTOGRAPHS = {
    "bee": "bee", "bison": "bison", "cat": "cat", "coffee": "coffee", "coral_reef": "coral reef",
    "dog": "dog", "frying_pan": "frying pan", "giraffe": "giraffe", "hammer": "hammer",
    "hedgehog": "hedgehog", "mountain": "mountain", "palace": "palace", "parrot": "parrot",
    "windmill": "windmill",
}  # fmt: skip
CLASSIC = ["a diagram", "a dog", "a cat"]


@pytest.fixture(scope="module")
def mini() -> Predictor:
    return Predictor(pretrained("clip_mini"))


def test_the_right_label_wins(mini: Predictor) -> None:
    paths = [EXAMPLES / f"{noun}.png" for noun in NOUNS]
    answers = mini.classify(paths=paths, labels=[*NOUNS, "diagram"], templates="a picture of a {}")
    right = [noun for noun, answer in zip(NOUNS, answers, strict=True) if answer[0]["label"] == noun]
    assert len(right) >= 8, right


def test_photographs_are_named_among_all_the_modules_labels(mini: Predictor) -> None:
    paths = [EXAMPLES / f"photo_{name}.jpg" for name in PHOTOGRAPHS]
    answers = mini.classify(paths=paths, top_k=5)
    named = [[item["label"] for item in answer] for answer in answers]
    first = [name for name, labels in zip(PHOTOGRAPHS.values(), named, strict=True) if labels[0] == name]
    among_five = [name for name, labels in zip(PHOTOGRAPHS.values(), named, strict=True) if name in labels]
    assert len(first) >= 8, first
    assert len(among_five) >= 11, among_five


def test_words_find_the_image(mini: Predictor) -> None:
    paths = [EXAMPLES / f"{noun}.png" for noun in NOUNS]
    vectors = mini.embed(paths=paths, texts=[f"a picture of a {noun}" for noun in NOUNS])
    similarity = vectors["texts"] @ vectors["images"].T
    assert (similarity.argmax(axis=1) == np.arange(len(NOUNS))).sum() >= 8


@pytest.mark.parametrize("name", ["diagram", "flowchart"])
def test_a_diagram_is_a_diagram(mini: Predictor, name: str) -> None:
    (answer,) = mini.classify(paths=[EXAMPLES / f"{name}.png"], labels=CLASSIC)
    assert answer[0]["label"] == "a diagram"


@pytest.mark.parametrize("name", ["dog", "cat"])
def test_a_dog_and_a_cat_are_told_apart(mini: Predictor, name: str) -> None:
    (answer,) = mini.classify(paths=[EXAMPLES / f"{name}.png"], labels=CLASSIC)
    assert answer[0]["label"] == f"a {name}"


def test_through_hub_run(hub_home: Path, tmp_path: Path) -> None:
    done = hub_run(
        "clip_mini", "--input_path", str(EXAMPLES / "diagram.png"), "--labels", ",".join(CLASSIC),
        "--format", "json", cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(done.stdout)["results"][0]["labels"][0]["label"] == "a diagram"


def test_through_http(hub_home: Path, tmp_path: Path) -> None:
    port = free_port()
    server = start_server(["-m", "clip_mini", "-p", str(port)], port, tmp_path / "log.txt")
    try:
        for noun in ("bicycle", "guitar"):
            image = base64.b64encode((EXAMPLES / f"{noun}.png").read_bytes()).decode()
            body = {"images": [image], "labels": list(NOUNS), "templates": "a picture of a {}"}
            reply = requests.post(f"http://127.0.0.1:{port}/predict/clip_mini", json=body, timeout=120).json()
            assert reply["results"][0][0]["label"] == noun
    finally:
        stop_server(server)


def test_without_a_network(hub_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies that lead nowhere: whatever tried to fetch anything would fail."""
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert os.environ["https_proxy"]
    done = hub_run(
        "clip_mini", "--input_path", str(EXAMPLES / "bicycle.png"), "--format", "json", cwd=tmp_path
    )
    assert json.loads(done.stdout)["results"][0]["labels"][0]["label"] == "bicycle"
