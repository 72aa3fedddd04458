"""A cache of a few images: what is kept and chosen, and that every door answers from it."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clip_common.adaptation import cache as caching
from clip_common.adaptation.adapt import AdaptedByCache, adapt, adapt_by_cache
from clip_common.adaptation.cache import fit_cache, limited
from clip_common.adaptation.dataset import Dataset, read_dataset
from clip_common.adaptation.prepare import prepare
from clip_common.adaptation.task import AdaptationTask
from clip_common.cli.main import main
from clip_common.config import pretrained
from clip_common.errors import RequestError, WeightsError
from clip_common.evaluation import evaluate
from clip_common.evaluation.datasets import read_labelled
from clip_common.predictor import Predictor
from clip_common.server.answering import answer
from clip_common.server.limits import Limits
from clip_common.server.request import RequestBody
from clip_common.weights.class_head import read_classes
from clip_common.weights.convert import convert
from clip_common.weights.readers import read_state
from clip_common.weights.weights_file import write_safetensors
from clip_common.zero_shot.scoring import l2_normalize
from tests.support.answers import assert_same
from tests.support.drawings import KINDS, write_drawings
from tests.support.paths import ROOT
from tests.support.refusals import refused

MINI = pretrained("clip_mini")
SCALE = 25.0


def task(data: Path, output: Path, **changes: Any) -> AdaptationTask:
    return AdaptationTask("clip_mini", str(data), output, **{"head": "cache", **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawings(tmp_path_factory.mktemp("drawings"), 5)


@pytest.fixture(scope="module")
def adapted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AdaptedByCache:
    return adapt_by_cache(task(folder, tmp_path_factory.mktemp("run"), held_out=0.25))


@pytest.fixture(scope="module")
def predictor(adapted: AdaptedByCache) -> Predictor:
    return Predictor(MINI, adapted.path)


def held_out_paths(adapted: AdaptedByCache) -> list[str]:
    return [name for name, _ in adapted.prepared.held_out.images]


def plain_scores(weights: Path, features: np.ndarray) -> np.ndarray:
    """The scores of a file's classes by the formula alone, float64 [n, classes]."""
    state = {name: value.astype(np.float64) for name, value in read_state(weights).items()}
    classes = read_classes(weights, MINI.config.embed_dim)
    assert classes and classes.cache
    strength = classes.cache.strength
    one_hot = np.eye(len(classes.names))[state["cache_values"].astype(int)]
    affinity = np.exp(-strength.beta * (1 - features @ state["cache_keys"].T))
    logits = np.exp(state["logit_scale"]) * features @ state["class_vectors"].T
    logits = (logits + strength.alpha * affinity @ one_hot) / strength.temperature
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


# --- every door -----------------------------------------------------------------------------------------


def test_the_file_answers_by_the_formula(adapted: AdaptedByCache, predictor: Predictor) -> None:
    paths = held_out_paths(adapted)
    assert len(paths) == 6 and adapted.fitted.strength.alpha > 0
    features = predictor.embed(paths=paths)["images"]
    scores = plain_scores(adapted.path, features.astype(np.float64))
    names = sorted(KINDS)
    for answered, row in zip(predictor.classify(paths=paths), scores, strict=True):
        found = {item["label"]: item["score"] for item in answered}
        assert sum(found.values()) == pytest.approx(1)
        np.testing.assert_allclose([found[name] for name in names], row, atol=1e-5)
    right = [
        names[best] == Path(path).parent.name for best, path in zip(scores.argmax(1), paths, strict=True)
    ]
    assert np.mean(right) == adapted.held_out
    assert adapted.before is not None and adapted.held_out is not None and adapted.held_out > adapted.before


def test_some_of_the_classes_have_their_images_and_other_labels_are_read(
    adapted: AdaptedByCache, predictor: Predictor
) -> None:
    paths = held_out_paths(adapted)[:2]
    features = predictor.embed(paths=paths)["images"].astype(np.float64)
    every = plain_scores(adapted.path, features)[:, [2, 0]]  # fosk, bim
    expected = every / every.sum(axis=1, keepdims=True)
    for answered, row in zip(predictor.classify(paths=paths, labels=["fosk", "bim"]), expected, strict=True):
        found = {item["label"]: item["score"] for item in answered}
        np.testing.assert_allclose([found["fosk"], found["bim"]], row, atol=1e-5)
    for labels, templates in ((["fosk", "a dog"], None), (["fosk", "bim"], "a {}")):
        asked: dict[str, Any] = {"paths": paths, "labels": labels, "templates": templates}
        for ours, theirs in zip(predictor.classify(**asked), Predictor(MINI).classify(**asked), strict=True):
            assert [one["label"] for one in ours] == [one["label"] for one in theirs]
            np.testing.assert_allclose(
                [one["score"] for one in ours], [one["score"] for one in theirs], atol=1e-5
            )


def test_the_server_answers_the_same(adapted: AdaptedByCache, predictor: Predictor) -> None:
    path = held_out_paths(adapted)[0]
    image = base64.b64encode(Path(path).read_bytes()).decode()
    bodies: list[dict[str, Any]] = [{"images": [image]}, {"images": [image], "scores": "cosine"}]
    by_softmax, by_cosine = answer(predictor, [RequestBody.parse(body).work(Limits()) for body in bodies])
    assert_same(by_softmax, predictor.classify(paths=[path]))
    assert_same(by_cosine, predictor.classify(paths=[path], scores="cosine"))


def test_evaluate_answers_from_it(predictor: Predictor, folder: Path) -> None:
    data = read_labelled(str(folder))
    found = evaluate.zero_shot_figures(predictor, data, evaluate.score(predictor, data))
    names = [predictor.classify(paths=[name], top_k=1)[0][0]["label"] for name, _ in data.images]
    right = [name == data.classes[target] for name, target in zip(names, data.targets, strict=True)]
    assert found.numbers["top-1"] == pytest.approx(np.mean(right))


def test_packing_it_again_and_again_keeps_it(adapted: AdaptedByCache, tmp_path: Path) -> None:
    """What `pack` writes is what `convert` writes."""
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    convert(adapted.path, first)
    convert(first, second)
    before, after = (read_classes(path, MINI.config.embed_dim) for path in (adapted.path, second))
    assert before and after and before.cache and after.cache
    assert (before.names, before.cache.strength) == (after.names, after.cache.strength)
    for one, other in ((before.cache.keys, after.cache.keys), (before.cache.values, after.cache.values)):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(before.vectors, after.vectors)


def test_the_towers_are_as_they_were(adapted: AdaptedByCache) -> None:
    before = read_state(ROOT / "modules" / "clip_mini" / "clip_mini.safetensors")
    after = read_state(adapted.path)
    assert set(after) - set(before) == {"class_vectors", "cache_keys", "cache_values"}
    for name in ("visual.conv_stem.weight", "text_projection", "logit_scale"):
        np.testing.assert_array_equal(after[name], before[name])


def test_figures_are_written(adapted: AdaptedByCache) -> None:
    figures = json.loads((adapted.path.parent / "figures.json").read_text("utf-8"))
    assert (figures["training images"], figures["held-out images"]) == (9, 6)
    assert figures["cache"]["alpha"] == adapted.fitted.strength.alpha
    assert figures["cache"]["held_out"] == adapted.held_out


# --- what is kept, and how it counts --------------------------------------------------------------------


def blobs(counts: tuple[int, ...], spread: float = 0.5) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Images around the directions of their classes, whose names point nowhere."""
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(len(counts)), counts)
    centres = np.eye(len(counts), 8)
    features = l2_normalize(centres[targets] + spread * rng.normal(size=(len(targets), 8)))
    names = l2_normalize(rng.normal(size=(len(counts), 8))).astype(np.float32)
    images: Any = [(f"{i}.png", b"") for i in range(len(targets))]
    texts = [f"class {i}" for i in range(len(counts))]
    return Dataset(images, targets, texts, captioned=False), features.astype(np.float32), names


def test_each_image_is_judged_without_itself() -> None:
    """Of two classes of three images that are all alike: without it there are two of its own, and three."""
    dataset, _, names = blobs((3, 3))
    same = np.tile(l2_normalize(np.ones(8)).astype(np.float32), (6, 1))
    fitted = fit_cache(dataset, same, names * 0 + names[:1], SCALE, alpha=10.0, beta=1.0)
    assert fitted.accuracy == 0


def test_the_same_images_in_another_order_give_the_same_cache() -> None:
    dataset, features, names = blobs((5, 4, 6))
    order = np.random.default_rng(1).permutation(15)
    first = fit_cache(dataset, features, names, SCALE)
    second = fit_cache(dataset.part(order), features[order], names, SCALE)
    assert first.strength == second.strength
    for one, other in zip(first.targets().keys, second.targets().keys, strict=True):
        np.testing.assert_array_equal(np.sort(one, axis=0), np.sort(other, axis=0))


def test_what_is_chosen_is_better_than_the_names_and_not_too_sure() -> None:
    dataset, features, names = blobs((20, 20, 20))
    fitted = fit_cache(dataset, features, names, SCALE)
    assert fitted.accuracy is not None and fitted.before is not None
    assert fitted.accuracy > fitted.before + 0.2
    sharp = fit_cache(dataset, features, names, SCALE, alpha=1000.0, beta=1.0)
    assert sharp.strength.alpha == 1000 and sharp.strength.temperature > 8


def test_one_image_a_class_takes_the_papers_alpha_and_beta() -> None:
    dataset, features, names = blobs((1, 1, 1))
    fitted = fit_cache(dataset, features, names, SCALE)
    assert fitted.strength == caching.PAPER and fitted.accuracy is None
    assert fit_cache(dataset, features, names, SCALE, alpha=3.0).strength == replace(caching.PAPER, alpha=3.0)


def test_a_cache_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is left out is not read."""
    dataset, _, _ = blobs((9, 2, 5))
    monkeypatch.setattr(caching, "MOST_IMAGES", 10)
    few = limited(dataset)
    assert np.bincount(few.targets).tolist() == [4, 2, 4] and limited(few) is few
    order = np.random.default_rng(1).permutation(16)
    assert sorted(limited(dataset.part(order)).images) == sorted(few.images)
    monkeypatch.setattr(caching, "MOST_IMAGES", 2)
    with pytest.raises(RequestError, match="3 classes are too many: a cache holds at most 2 images"):
        limited(dataset)
    monkeypatch.setattr(caching, "MOST_IMAGES", 4)
    asked = task(write_drawings(tmp_path / "data", 3), tmp_path, held_out=0.0)
    assert [
        len(part.images) for part in (read_dataset(asked.data), prepare(asked, asked.predictor()).train)
    ] == [9, 3]
    assert "6 are left out" in caplog.text


# --- what is wrong with it ------------------------------------------------------------------------------


def test_nothing_needs_to_be_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_drawings(tmp_path / "data", 1)
    command = ["adapt", str(data), "--head", "cache", "--output"]
    assert "--head cache --held_out 0" in refused(capsys, *command, str(tmp_path / "none"))
    (data / "bim" / "broken.png").write_bytes(b"no image")
    assert main([*command, str(tmp_path / "run"), "--held_out", "0"]) == 1
    said = capsys.readouterr()
    assert "broken.png" in said.err and "alpha 1, beta 5.5" in said.out
    classes = read_classes(tmp_path / "run" / "adapted.safetensors", MINI.config.embed_dim)
    assert classes and classes.cache and classes.cache.values.tolist() == [0, 1, 2]
    (data / "bim" / "bim0.png").write_bytes(b"no image")
    assert main([*command, str(tmp_path / "other"), "--held_out", "0"]) == 1
    assert "none of 'bim' can be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 3}, "--head cache trains nothing: leave --epochs out"),
        ({"lock_image_tower": True}, "leave --lock_image_tower out"),
        ({"reference": "x"}, "leave --reference out"),
        ({"head": "text", "beta": 2.0}, "--beta is for --head cache"),
        ({"alpha": 1e308}, "--alpha is 1e.308, expected at most 1,000,000"),
        ({"beta": 1e7}, r"--beta is 1e.07, expected at most 1,000,000"),
        ({"head": "text", "alpha": 2.0}, "--alpha is 2, expected 0 to 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    asked = task(folder, tmp_path, **changes)
    with pytest.raises(RequestError, match=words):
        adapt_by_cache(asked) if asked.head == "cache" else adapt(asked)


def test_captions_and_a_cache_of_the_same_classes_are_refused(
    folder: Path, adapted: AdaptedByCache, tmp_path: Path
) -> None:
    (tmp_path / "c.csv").write_text(f"path,caption\n{folder}/bim/bim0.png,a bar\n")
    with pytest.raises(RequestError, match="has captions"):
        adapt_by_cache(task(tmp_path / "c.csv", tmp_path / "run"))
    with pytest.raises(RequestError, match="has a cache of images, and cannot be adapted further"):
        adapt_by_cache(task(folder, tmp_path / "run", weights=str(adapted.path)))


def test_a_damaged_cache_is_refused(adapted: AdaptedByCache, tmp_path: Path) -> None:
    state, path = read_state(adapted.path), tmp_path / "w.safetensors"
    good = {"classes": sorted(KINDS), "cache": {"alpha": 1, "beta": 5.5, "temperature": 1}}
    keys, values = state["cache_keys"], state["cache_values"]
    without = {name: value for name, value in state.items() if name != "cache_values"}
    image = Image.new("RGB", (8, 8))
    for changed, record, words in (
        (state | {"cache_keys": keys * 2}, good, "of length 1"),
        (state | {"cache_keys": keys * np.float32(np.nan)}, good, "finite"),
        (state | {"cache_keys": keys[:-1]}, good, "cache_keys should be"),
        (state | {"cache_values": values[::-1].copy()}, good, "should be increasing"),
        (state | {"cache_values": np.minimum(values, 1)}, good, "should be increasing"),
        (without, good, "is incomplete"),
        (state, {"classes": good["classes"]}, "is incomplete"),
        (state, good | {"cache": {"alpha": "x", "beta": 1}}, "is incomplete"),
        (state, good | {"cache": {"alpha": 1, "gamma": 1}}, "is incomplete"),
        (state, good | {"cache": {"alpha": -1, "beta": 1}}, "above 0"),
        (state, good | {"cache": {"alpha": 1, "beta": 1e999}}, "above 0"),
        (state, good | {"cache": {"alpha": 1e308, "beta": 1}}, "at most 1,000,000"),
    ):
        write_safetensors(changed, path, record)
        with pytest.raises(WeightsError, match=words):
            Predictor(MINI, path).classify(images=[image])
