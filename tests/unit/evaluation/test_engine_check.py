"""`clip-hub engine NAME --check`: every engine and precision that runs here, on the user's images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_common.cli.main import main
from clip_common.engines.base import ENGINES, PRECISIONS
from clip_common.errors import LabelError, RequestError
from clip_common.evaluation import engine_check
from clip_common.evaluation.engine_check import check_engines
from clip_common.predictor import Predictor
from tests.support.paths import EXAMPLES

DOG, CAT = EXAMPLES / "dog.png", EXAMPLES / "cat.png"
LABELS = ["a dog", "a cat"]


class _Stub:
    """A predictor whose features are written down, one for each image."""

    logit_scale = 1.0

    def __init__(self, features: list[list[float]], took: list[int] | None = None) -> None:
        self.given, self.took = np.array(features, np.float32), took

    def encode_image(self, pixels: np.ndarray) -> np.ndarray:
        if self.took is not None:
            self.took.append(len(pixels))
        start = int(pixels[0, 0, 0, 0])
        return self.given[start : start + len(pixels)]

    def prepare(self, image: tuple[str, Any]) -> np.ndarray:
        return np.full((3, 1, 1), image[1], np.float32)

    @property
    def labels(self) -> Any:
        prompts = type("Prompts", (), {"labels": LABELS})
        return type("Labels", (), {"prompts": lambda *_: prompts, "targets": lambda *_: np.eye(2)})()


def test_the_figures_are_those_of_the_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths do not count; of three images one turns by 60 degrees and gets the other label."""
    half, root = 0.5, 0.75**0.5
    wanted, found = [[1, 0], [0, 1], [1, 0]], [[5, 0], [0, 1], [half, root]]
    candidates = [
        engine_check._Candidate("openvino", "float32", _Stub(wanted)),  # type: ignore[arg-type]
        engine_check._Candidate("openvino", "bfloat16", _Stub(found)),  # type: ignore[arg-type]
    ]
    monkeypatch.setattr(engine_check, "_candidates", lambda _: (candidates, {"paddle, bfloat16": "why"}))
    images: list[Any] = [(str(i), i) for i in range(3)]
    done = check_engines(_Stub(wanted), images)  # type: ignore[arg-type]
    same, other = done.rows
    assert (same.mean_cosine, same.least_cosine, same.equal_first_answers) == (1, 1, 1)
    assert other.mean_cosine == pytest.approx(2.5 / 3) and other.least_cosine == pytest.approx(0.5)
    assert other.equal_first_answers == pytest.approx(2 / 3)
    assert (done.reference, done.images, done.batch_size, done.labels) == ("openvino", 3, 3, 2)
    assert done.refused == {"paddle, bfloat16": "why"}


def test_batches_are_of_32_and_timed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    took: list[int] = []
    stubs = [_Stub([[1, 0]] * 70, took), _Stub([[1, 0]] * 70, took)]
    candidates = [engine_check._Candidate(f"{i}", "float32", stub) for i, stub in enumerate(stubs)]  # type: ignore[arg-type]
    monkeypatch.setattr(engine_check, "_candidates", lambda _: (candidates, {}))
    images: list[Any] = [(str(i), i) for i in range(70)]
    done = check_engines(stubs[0], images)  # type: ignore[arg-type]
    assert took == [32, 32, 32, 32, 6, 6, *[32, 32] * (1 + engine_check._ROUNDS)]
    assert (done.images, done.batch_size) == (70, 32)
    assert [len(candidate.seconds) for candidate in candidates] == [engine_check._ROUNDS] * 2


@pytest.mark.parametrize(
    "precisions", [("float32", "bfloat16"), pytest.param(PRECISIONS, marks=pytest.mark.slow)]
)
def test_whatever_runs_here_is_measured_and_the_rest_has_its_reason(
    precisions: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(engine_check, "_ROUNDS", 1)
    monkeypatch.setattr(engine_check, "PRECISIONS", precisions)
    broken = tmp_path / "broken.png"
    broken.write_bytes(DOG.read_bytes()[:100])
    images = [(str(path), path) for path in (DOG, broken, CAT)]
    done = check_engines(Predictor("clip_mini"), images, LABELS)
    rows = {(row.engine, row.precision): row for row in done.rows}
    every = {(name, precision) for name in ENGINES[1:] for precision in precisions}
    named = {tuple(name.split(", ")) for name in done.refused}
    assert rows.keys() | named == every and not rows.keys() & named
    assert {("onnxruntime", "float32"), ("paddle", "float32")} <= rows.keys()
    assert ("paddle", "bfloat16") in named and "float32" in done.refused["paddle, bfloat16"]
    assert (done.rows[0].engine, done.rows[0].precision) == (done.reference, "float32")
    assert list(done.errors) == [str(broken)] and done.images == 2
    for (_, precision), row in rows.items():
        assert row.images_per_second > 0
        if precision == "float32":
            assert 1 - 1e-6 < row.least_cosine <= row.mean_cosine <= 1 and row.equal_first_answers == 1


def test_openvino_is_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(engine_check, "PRECISIONS", ("float32",))
    found, _ = engine_check._candidates(Predictor("clip_mini"))
    assert ("openvino", "float32") in {(one.engine, one.precision) for one in found}


def test_an_engine_in_whose_place_another_runs_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paddle takes over, with a warning, where towers cannot be compiled."""
    monkeypatch.setattr(Predictor, "engine", lambda _: type("Engine", (), {"name": "paddle"}))
    found, refused = engine_check._candidates(Predictor("clip_mini"))
    assert [one.engine for one in found if one.precision == "float32"] == ["paddle"]
    assert "cannot be compiled" in refused["onnxruntime, float32"]


def test_nothing_to_measure_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_check, "_candidates", lambda _: ([], {}))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    for images in ([], [(str(broken), broken)]):
        with pytest.raises(RequestError, match=r"none of the images can be used.*give at least one"):
            check_engines(Predictor("clip_mini"), images, LABELS)
    with pytest.raises(LabelError):
        check_engines(Predictor("clip_mini"), [(str(DOG), DOG)], [" "])


# --- the verb -----------------------------------------------------------------------------------------


@pytest.fixture
def only_paddle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_check, "ENGINES", ("auto", "paddle"))
    monkeypatch.setattr(engine_check, "_ROUNDS", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("only_paddle")
def test_the_verb_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    (tmp_path / "dog.png").write_bytes(DOG.read_bytes())
    argv = ["engine", "clip_mini", "--check", str(tmp_path), str(CAT), "--labels", "a dog,a cat"]
    assert main(argv) == 1
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("2 images, 2 labels; ")
    assert lines[3].split()[:2] == ["paddle", "float32"] and lines[3].endswith("100.0%")
    assert lines[4].startswith("not here: paddle, bfloat16: ")
    assert str(broken) in said.err and "1 image could not be read: left out" in said.err
    assert main([*argv, "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["rows"][0]["engine"] == "paddle" and found["rows"][0]["equal_first_answers"] == 1
    assert [error["path"] for error in found["errors"]] == [str(broken)]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--labels", "a,b"], "--labels goes with --check IMAGE"),
        (["--format", "json"], "--format goes with --check IMAGE"),
        (["--check", str(DOG), "--engine", "paddle"], "leave --engine and --precision out"),
        (["--check", "nowhere.png"], "--check nowhere.png"),
        (["--check", str(EXAMPLES.parent / "docs" / "decisions")], "the folder has no images"),
    ],
)
def test_options_that_do_not_go_together(
    capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    assert main(["engine", "clip_mini", *argv]) == 1
    said = capsys.readouterr()
    assert words in said.err and said.out == ""
