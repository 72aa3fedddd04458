"""Adapting with the image tower locked: on features computed once, with a change of nothing in the tower."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_common.adaptation import adapt as adapting
from clip_common.adaptation.adapt import adapt
from clip_common.adaptation.batches import FeatureBatches
from clip_common.adaptation.dataset import read_dataset
from clip_common.adaptation.task import AdaptationTask
from clip_common.adaptation.trainers import ClassTrainer
from clip_common.config import pretrained
from clip_common.engines.paddle_engine import PaddleEngine
from clip_common.errors import RequestError, TrainingError
from clip_common.models.clip import CLIP
from clip_common.predictor import Predictor
from clip_common.trainer import checkpoint
from clip_common.weights.readers import read_state
from clip_common.weights.weights_file import read_openai
from tests.support.drawings import KINDS, write_drawings
from tests.support.killed import killed_after
from tests.support.paths import ROOT

MINI = pretrained("clip_mini")
OWN_WEIGHTS = ROOT / "modules" / "clip_mini" / "clip_mini.safetensors"


def task(data: Path, output: Path, **changes: Any) -> AdaptationTask:
    given: dict[str, Any] = {"epochs": 5, "batch_size": 9, "held_out": 0.25, "lock_image_tower": True}
    return AdaptationTask("clip_mini", str(data), output, **{**given, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawings(tmp_path_factory.mktemp("drawings"), 8)


@pytest.fixture(scope="module")
def table(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images with captions."""
    path = tmp_path_factory.mktemp("captions") / "pairs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "caption"])
        writer.writerows(
            [image, f"the {kind} of ours"] for kind in KINDS for image in (folder / kind).iterdir()
        )
    return path


@pytest.fixture
def no_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paddle never runs the image tower."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the image tower ran in Paddle")

    monkeypatch.setattr(CLIP, "encode_image", never)
    monkeypatch.setattr(PaddleEngine, "encode_image", never)


def visual(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in state.items() if name.startswith("visual.")}


@pytest.mark.slow
def test_classes_are_trained_and_no_tower(folder: Path, tmp_path: Path, no_tower: None) -> None:
    found = adapt(task(folder, tmp_path, alpha=1.0, reference=str(folder)))
    assert found.chosen.held_out > found.points[0].held_out
    assert len({point.reference for point in found.points}) == 1
    before, after = read_openai(OWN_WEIGHTS), read_state(found.path)
    assert set(after) - set(before) == {"class_vectors"}
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    run = checkpoint.load(tmp_path / "checkpoint.npz")
    assert set(run.average) == {"classes"}
    paths = [name for name, _ in found.prepared.held_out.images]
    answers = Predictor(MINI, found.path).classify(paths=paths, top_k=1)
    right = [one[0]["label"] == Path(path).parent.name for one, path in zip(answers, paths, strict=True)]
    assert np.mean(right) == found.chosen.held_out


@pytest.mark.slow
def test_captions_train_the_text_tower_alone(table: Path, tmp_path: Path, no_tower: None) -> None:
    found = adapt(task(table, tmp_path, alpha=1.0, epochs=3))
    before, after = read_openai(OWN_WEIGHTS), read_state(found.path)
    for name, value in visual(before).items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert not np.array_equal(after["text_projection"], before["text_projection"])
    assert not visual(checkpoint.load(tmp_path / "checkpoint.npz").model)


@pytest.mark.slow
def test_the_same_accuracy_as_of_the_file(folder: Path, tmp_path: Path) -> None:
    """What is measured without running the tower is what it would give."""
    found = adapt(task(folder, tmp_path))
    features = Predictor(MINI).embed(paths=[name for name, _ in found.prepared.held_out.images])["images"]
    logits = features @ read_state(found.path)["class_vectors"].T
    assert (logits.argmax(axis=1) == found.prepared.held_out.targets).mean() == found.chosen.held_out


@pytest.mark.slow
def test_a_killed_run_resumes_on_the_same_curve(folder: Path, tmp_path: Path) -> None:
    asked = task(folder, tmp_path / "killed", save_every=2)
    with killed_after(ClassTrainer, 4):
        adapt(asked)
    with pytest.raises(TrainingError, match="lock_image_tower was True and is False"):
        adapt(replace(asked, resume=True, lock_image_tower=False))
    adapt(replace(asked, resume=True))
    adapt(replace(asked, output=tmp_path / "whole"))
    resumed, whole = (
        checkpoint.load(tmp_path / name / "checkpoint.npz").curve[:, 0] for name in ("killed", "whole")
    )
    np.testing.assert_allclose(resumed, whole, rtol=1e-4)


def test_workers_share_the_features_of_a_batch(folder: Path, tmp_path: Path) -> None:
    dataset = read_dataset(str(folder))
    features = np.arange(24, dtype=np.float32)[:, None]
    settings = replace(task(folder, tmp_path).settings(dataset, ""), batch_size=8, workers=2)
    whole = FeatureBatches(dataset, features, replace(settings, workers=1))
    for step in range(4):
        halves = [FeatureBatches(dataset, features, settings, worker)(step).images for worker in (0, 1)]
        np.testing.assert_array_equal(np.concatenate(halves), whole(step).images)
        np.testing.assert_array_equal(
            dataset.targets[whole(step).images[:, 0].astype(int)], whole(step).targets
        )


def test_classes_alone_learn_faster(folder: Path, table: Path, tmp_path: Path) -> None:
    locked = task(folder, tmp_path)
    rates = [
        one.settings(read_dataset(one.data), "").learning_rate
        for one in (locked, replace(locked, lock_image_tower=False), replace(locked, data=str(table)))
    ]
    assert rates == pytest.approx([10 * MINI.adaptation_rate, MINI.adaptation_rate, MINI.adaptation_rate])


def test_a_mirror_image_needs_the_tower(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--flip is for training the image tower"):
        adapting.adapt(task(folder, tmp_path, flip=True))
