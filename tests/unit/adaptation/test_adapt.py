"""Adapting a module: to classes and to captions, killed and resumed, mixed, packed under its own name."""

from __future__ import annotations

import csv
import json
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from PIL import Image

from clip_common.adaptation import adapt as adapting
from clip_common.adaptation import interpolation
from clip_common.adaptation.adapt import adapt
from clip_common.adaptation.batches import AdaptationBatches, crop_box
from clip_common.adaptation.dataset import read_dataset, split
from clip_common.adaptation.prepare import prepare
from clip_common.adaptation.task import AdaptationTask
from clip_common.adaptation.trainers import ClassTrainer
from clip_common.cli.main import main
from clip_common.config import pretrained
from clip_common.errors import ImageError, RequestError, TrainingError, WeightsError
from clip_common.evaluation import datasets, evaluate
from clip_common.hub.pack import pack
from clip_common.predictor import Predictor
from clip_common.preprocessing.image import Preprocess
from clip_common.system.text_files import Table, read_table
from clip_common.trainer import checkpoint
from clip_common.trainer.loss import class_loss
from clip_common.version import __version__
from clip_common.weights.class_head import read_classes
from clip_common.weights.readers import read_state
from clip_common.weights.weights_file import read_openai, write_safetensors
from tests.support.drawings import KINDS, drawing, write_drawings
from tests.support.killed import killed_after
from tests.support.paths import ROOT

MINI = pretrained("clip_mini")
OWN_WEIGHTS = ROOT / "modules" / "clip_mini" / "clip_mini.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawings(tmp_path_factory.mktemp("drawings"), 16)


def task(data: Path, output: Path, **changes: Any) -> AdaptationTask:
    given: dict[str, Any] = {"epochs": 3, "batch_size": 12, "held_out": 0.25, "save_every": 2}
    return AdaptationTask("clip_mini", str(data), output, **{**given, **changes})


@pytest.fixture(scope="module")
def adapted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> adapting.Adapted:
    return adapt(task(folder, tmp_path_factory.mktemp("run"), alpha=1.0))


def held_out_paths(adapted: adapting.Adapted) -> list[str]:
    return [name for name, _ in adapted.prepared.held_out.images]


# --- what is read ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_mended_image_is_read_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    broken, changed = data / "bim" / "bim3.png", data / "fosk" / "fosk4.png"
    content = broken.read_bytes()
    broken.write_bytes(b"no image")
    asked, predictor = task(data, tmp_path / "run"), Predictor(MINI)
    first = prepare(asked, predictor)
    assert list(first.errors) == [str(broken)]
    broken.write_bytes(content)
    status = changed.stat()
    changed.write_bytes((data / "bim" / "bim3.png").read_bytes())
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = prepare(asked, predictor)
    assert second.errors == {} and len(second.train.images) + len(second.held_out.images) == 48
    features = {
        name: feature
        for dataset, rows in (
            (second.train, second.train_features), (second.held_out, second.held_out_features)
        )
        for (name, _), feature in zip(dataset.images, rows, strict=True)
    }  # fmt: skip
    np.testing.assert_allclose(features[str(changed)], features[str(broken)], atol=1e-5)

    def never(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(evaluate, "image_features", never)
    prepare(asked, predictor)  # nothing changed


def test_images_are_read_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the features before, in training, and in what a run goes on from."""
    turned = Image.Exif()
    turned[274] = 6
    for kind in KINDS[:2]:
        (tmp_path / "data" / kind).mkdir(parents=True)
        for number in range(4):
            drawing(kind, number).save(tmp_path / "data" / kind / f"{number}.jpg", exif=turned)
    plain = task(tmp_path / "data", tmp_path / "run")
    asked = replace(plain, exif_rotation=True, fast_jpeg=True, engine="paddle")
    options = asked.predictor().options
    assert (options.exif_rotation, options.fast_jpeg, options.engine) == (True, True, "paddle")
    first, second = (prepare(one, one.predictor()) for one in (plain, replace(plain, exif_rotation=True)))
    assert not np.allclose(first.train_features, second.train_features, atol=1e-3)
    sha256 = plain.predictor().weights_sha256
    settings = [one.settings(first.train, sha256).data for one in (plain, asked)]
    assert settings[0] == first.train.stamp() and settings[1] == f"{settings[0]} exif_rotation fast_jpeg"

    given: list[AdaptationTask] = []

    def stop(task: AdaptationTask) -> None:
        given.append(task)
        raise RequestError("far enough")

    monkeypatch.setattr(adapting, "adapt", stop)
    chosen = ["--exif_rotation", "--engine", "paddle"]
    assert main(["adapt", str(tmp_path), "--output", str(tmp_path / "x"), *chosen]) == 1
    assert given[0].exif_rotation and given[0].engine == "paddle" and not given[0].fast_jpeg


@pytest.mark.parametrize(
    ("chosen", "asked", "errors", "status", "words"),
    [
        (0.5, [], {}, 0, None),
        (
            0.5,
            [],
            {"a.png": "a.png: not an image"},
            1,
            "a.png: not an image\n1 image could not be read: left out\n",
        ),
        (0.0, [], {}, 0, "adapting did not help: w.safetensors holds the weights as they were"),
        (0.0, ["--alpha", "0"], {}, 0, None),
    ],
)
def test_what_to_try_is_printed_after_a_success_alone(
    chosen: float,
    asked: list[str],
    errors: dict[str, str],
    status: int,
    words: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    point = interpolation.Point(chosen, 0.75, None)
    nothing = SimpleNamespace(errors=errors)
    made = adapting.Adapted(Path("w.safetensors"), [point], point, None, nothing)  # type: ignore[arg-type]
    monkeypatch.setattr(adapting, "adapt", lambda _: made)
    assert main(["adapt", str(tmp_path), "--output", str(tmp_path / "x"), *asked]) == status
    said = capsys.readouterr()
    assert ("Try it" in said.out, "Pack it" in said.out) == (not words, not words)
    assert said.err.startswith(words) if words else not said.err


@pytest.mark.slow
def test_an_error_of_reading_is_tried_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_image = Predictor.prepare

    def fails(self: Predictor, image: tuple) -> object:
        if image[0].endswith("bim3.png"):
            return ImageError(f"{image[0]}: cannot be read (Input/output error)")
        return prepare_image(self, image)

    asked, predictor = task(folder, tmp_path / "run"), Predictor(MINI)
    monkeypatch.setattr(Predictor, "prepare", fails)
    assert len(prepare(asked, predictor).errors) == 1
    monkeypatch.setattr(Predictor, "prepare", prepare_image)
    assert prepare(asked, predictor).errors == {}


def test_a_table_is_read_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def noted(path: Path) -> Table:
        read.append(path)
        return read_table(path)

    monkeypatch.setattr(datasets, "read_table", noted)
    for column in ("caption", "label"):
        (tmp_path / f"{column}.csv").write_text(f"path,{column}\n{folder}/bim/bim0.png,a line\n")
        read_dataset(str(tmp_path / f"{column}.csv"))
    assert read == [tmp_path / "caption.csv", tmp_path / "label.csv"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gbk", "utf-16"])
def test_captions_as_people_write_them(encoding: str, folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "T.CSV"
    lines = ["Path, Caption", f"{folder}/bim/bim0.png, 一条线", f"{folder}/bim/bim0.png, 007", ""]
    table.write_bytes("\n".join(lines).encode(encoding))
    data = read_dataset(str(table))
    assert data.captioned and data.texts == ["一条线", "007"] and data.targets.tolist() == [0, 1]


# --- what comes of it -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_accuracy_rises_on_images_that_training_does_not_see(adapted: adapting.Adapted) -> None:
    before, after = adapted.points[0].held_out, adapted.chosen.held_out
    assert after >= 0.9 and after > before + 0.3
    seen = {name for name, _ in adapted.prepared.train.images}
    assert len(seen) == 36 and not seen & set(held_out_paths(adapted))


@pytest.mark.slow
def test_the_module_chooses_among_its_own_classes(adapted: adapting.Adapted) -> None:
    predictor = Predictor(MINI, adapted.path)
    paths = held_out_paths(adapted)
    answers = predictor.classify(paths=paths, top_k=3)
    right = [
        answer[0]["label"] == Path(path).parent.name for answer, path in zip(answers, paths, strict=True)
    ]
    assert np.mean(right) == adapted.chosen.held_out
    state = read_state(adapted.path)
    features = predictor.embed(paths=paths)["images"]
    logits = np.exp(float(state["logit_scale"])) * features @ state["class_vectors"].T
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for answer, row in zip(answers, scores, strict=True):
        np.testing.assert_allclose([item["score"] for item in answer], sorted(row)[::-1], rtol=1e-4)
        assert {item["label"] for item in answer} == set(KINDS)


@pytest.mark.slow
def test_some_of_the_classes_keep_their_vectors_and_other_labels_are_read(adapted: adapting.Adapted) -> None:
    predictor = Predictor(MINI, adapted.path)
    prompts = predictor.prompts(["fosk", "drel"], None)
    classes = read_classes(adapted.path, MINI.config.embed_dim)
    assert classes
    np.testing.assert_array_equal(predictor.label_embeddings(prompts), classes.vectors[[2, 1]])
    words = ["drel", "a dog"]
    np.testing.assert_allclose(
        predictor.label_embeddings(predictor.prompts(words, None)),
        predictor.embed(texts=words)["texts"],
        atol=1e-6,
    )
    assert predictor.prompts(None, "a {}").texts() == ["a bim", "a drel", "a fosk"]


@pytest.mark.slow
def test_nothing_of_the_text_tower_changes(adapted: adapting.Adapted) -> None:
    before, after = read_openai(OWN_WEIGHTS), read_state(adapted.path)
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        if not name.startswith("visual."):
            np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert set(after) - set(before) == {"class_vectors"}


@pytest.mark.slow
def test_alpha_0_is_the_module_as_it_was(folder: Path, adapted: adapting.Adapted, tmp_path: Path) -> None:
    again = task(folder, adapted.path.parent, alpha=0.0, resume=True)  # a finished run is only mixed again
    path = adapted.path.rename(adapted.path.with_name("kept.safetensors"))
    try:
        found = adapt(again)
        state, before = read_state(found.path), read_state(OWN_WEIGHTS)
        np.testing.assert_array_equal(state["visual.conv_stem.weight"], before["visual.conv_stem.weight"])
        plain = Predictor(MINI)
        np.testing.assert_array_equal(
            state["class_vectors"], plain.label_embeddings(plain.labels.class_prompts(list(KINDS)))
        )
    finally:
        path.rename(adapted.path)


@pytest.mark.slow
def test_the_figures_are_written(adapted: adapting.Adapted) -> None:
    folder = adapted.path.parent
    figures = json.loads((folder / "figures.json").read_text("utf-8"))
    assert figures["training images"] == 36 and figures["held-out images"] == 12
    assert [point["alpha"] for point in figures["trade-off"]] == list(interpolation.ALPHAS)
    for image in ("trade_off.png", "curves.png"):
        assert np.asarray(Image.open(folder / image).convert("L")).std() > 5


@pytest.mark.slow
def test_a_probe_is_a_beginning(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="of the extra [evaluate]")
    found = adapt(task(folder, tmp_path, head="probe", epochs=1, reference=str(folder)))
    assert found.probe is not None and found.probe > found.points[0].held_out
    assert found.points[0].reference == pytest.approx(_zero_shot_accuracy(folder))


def _zero_shot_accuracy(folder: Path) -> float:
    data, predictor = read_dataset(str(folder)), Predictor(MINI)
    answers = predictor.classify(
        paths=[name for name, _ in data.images], labels=data.texts, templates="a picture of a {}", top_k=1
    )
    named = [data.texts.index(str(answer[0]["label"])) for answer in answers]
    return float(np.mean(np.array(named) == data.targets))


@pytest.mark.slow
def test_captions_train_both_towers(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "caption"])
        for kind in KINDS:
            for path in sorted((folder / kind).iterdir()):
                writer.writerow([path, f"the {kind} of my collection"])
    found = adapt(task(table, tmp_path / "run", alpha=1.0, epochs=4))
    assert found.chosen.held_out > found.points[0].held_out
    state, before = read_state(found.path), read_openai(OWN_WEIGHTS)
    assert set(state) == set(before)
    assert not np.array_equal(state["text_projection"], before["text_projection"])
    Predictor(MINI, found.path).embed(texts=["the bim of my collection"])


# --- the run --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_run_resumes_on_the_same_curve(
    folder: Path, adapted: adapting.Adapted, tmp_path: Path
) -> None:
    with killed_after(ClassTrainer, 5):
        adapt(task(folder, tmp_path))
    with pytest.raises(TrainingError, match="other settings"):
        adapt(task(folder, tmp_path, resume=True, seed=1))
    with pytest.raises(TrainingError, match="--resume"):
        adapt(task(folder, tmp_path))
    adapt(task(folder, tmp_path, resume=True))
    whole = checkpoint.load(adapted.path.parent / "checkpoint.npz")
    resumed = checkpoint.load(tmp_path / "checkpoint.npz")
    np.testing.assert_allclose(resumed.curve[:, 0], whole.curve[:, 0], rtol=1e-4)


@pytest.mark.slow
def test_two_workers_make_the_same_curve(folder: Path, adapted: adapting.Adapted, tmp_path: Path) -> None:
    adapt(task(folder, tmp_path, workers=2))
    whole = checkpoint.load(adapted.path.parent / "checkpoint.npz")
    shared = checkpoint.load(tmp_path / "checkpoint.npz")
    # A change of weights by 1e-7 moves the third loss by 0.2 %: Adam's first steps have one size.
    np.testing.assert_allclose(shared.curve[:2, 0], whole.curve[:2, 0], rtol=1e-5)
    np.testing.assert_allclose(shared.curve[:, 0], whole.curve[:, 0], rtol=5e-2)


def test_the_loss_is_that_of_the_scores_that_are_shown() -> None:
    rng = np.random.default_rng(0)
    image, classes = rng.normal(size=(5, 4)).astype("f"), rng.normal(size=(3, 4)).astype("f")
    targets = np.array([0, 2, 1, 1, 0])
    logits = 7.0 * (image / np.linalg.norm(image, axis=1, keepdims=True)) @ classes.T
    expected = -np.log(np.exp(logits)[range(5), targets] / np.exp(logits).sum(axis=1)).mean()
    found = class_loss(paddle.to_tensor(image), paddle.to_tensor(classes), 7.0, paddle.to_tensor(targets))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_an_epoch_shows_each_image_once(folder: Path) -> None:
    dataset = read_dataset(str(folder))
    settings = task(folder, folder).settings(dataset, "")
    preprocess = Preprocess(MINI.config.image_resolution, MINI.preprocessing)
    batches = AdaptationBatches(dataset, preprocess, settings)
    seen = np.concatenate([batches(step).targets for step in range(4)])
    assert sorted(seen) == sorted(dataset.targets)
    np.testing.assert_array_equal(batches(2).images, batches(2).images)
    assert not np.array_equal(batches(0).targets, batches(4).targets)
    halves = [
        AdaptationBatches(dataset, batches.preprocess, replace(settings, workers=2), worker=worker)(1)
        for worker in (0, 1)
    ]
    np.testing.assert_array_equal(np.concatenate([half.images for half in halves]), batches(1).images)


def test_crops_are_within_the_image() -> None:
    rng = np.random.default_rng(0)
    for size in ((1, 1), (3, 200), (640, 480)):
        for _ in range(200):
            left, upper, right, lower = crop_box(Image.new("L", size), rng)
            assert 0 <= left < right <= size[0] and 0 <= upper < lower <= size[1]
            assert (right - left) * (lower - upper) >= 0.5 * size[0] * size[1]


def test_the_split_is_by_class_and_by_name_alone(folder: Path, tmp_path: Path) -> None:
    dataset = read_dataset(str(folder))
    train, held_out = split(dataset, 0.25)
    assert [int((dataset.targets[held_out] == kind).sum()) for kind in range(3)] == [4, 4, 4]
    moved = tmp_path / "elsewhere"
    moved.symlink_to(folder)
    np.testing.assert_array_equal(split(read_dataset(str(moved)), 0.25)[1], held_out)
    assert sorted([*train, *held_out]) == list(range(48))


def test_mixtures_are_on_the_line() -> None:
    before, after = {"w": np.zeros(2, "f")}, {"w": np.array([1.0, -2.0], "f")}
    np.testing.assert_allclose(interpolation.mix(before, after, 0.25)["w"], [0.25, -0.5])
    points = [
        interpolation.Point(0.0, 0.5, None),
        interpolation.Point(0.4, 0.9, None),
        interpolation.Point(1.0, 0.9, None),
    ]
    assert interpolation.best(points).alpha == 0.4


@pytest.mark.slow
def test_a_run_goes_on_with_the_weights_it_began_with(folder: Path, tmp_path: Path) -> None:
    run = task(folder, tmp_path / "run", save_every=1, epochs=1)
    with killed_after(ClassTrainer, 1):
        adapt(run)
    state = {name: np.array(value) for name, value in read_state(OWN_WEIGHTS).items()}
    state["text_projection"] = state["text_projection"][:, ::-1].copy()
    write_safetensors(state, tmp_path / "other.safetensors", {})
    with pytest.raises(TrainingError, match=r"other settings \(weights was [0-9a-f]{64} and is"):
        adapt(replace(run, resume=True, weights=str(tmp_path / "other.safetensors")))


def test_the_same_images_are_known_again_without_the_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(MINI)
    first = prepare(task(folder, tmp_path), predictor)
    monkeypatch.setattr(Predictor, "image_features", None)
    second = prepare(task(folder, tmp_path), predictor)
    np.testing.assert_array_equal(first.train_features, second.train_features)


def test_validation_of_a_usual_data_set_is_in_the_order_of_the_training_classes(tmp_path: Path) -> None:
    names = "T-shirt,trousers,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot".split(",")
    for name in names:
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (28, 28)).save(tmp_path / "train" / name / "0.png")
    labels = np.arange(10, dtype=np.uint8)
    idx = lambda values: b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)  # noqa: E731
    images = np.zeros((10, 28, 28), np.uint8)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images) + images.tobytes())
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels) + labels.tobytes())
    train = read_dataset(str(tmp_path / "train"))
    assert train.texts == sorted(names)
    validation = read_dataset(f"fashion-mnist:{tmp_path}", train.texts)
    assert validation.texts == train.texts
    assert [validation.texts[target] for target in validation.targets] == names
    shutil.rmtree(tmp_path / "train" / "coat")
    with pytest.raises(RequestError, match="has the class 'coat', which is not among"):
        read_dataset(f"fashion-mnist:{tmp_path}", read_dataset(str(tmp_path / "train")).texts)


# --- what is wrong with it ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_broken_image_costs_itself(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for kind in KINDS:
        (data / kind).mkdir(parents=True)
        for number in range(4):
            drawing(kind, number).save(data / kind / f"{number}.png")
    (data / "bim" / "broken.png").write_bytes(b"no image")
    arguments = ["adapt", str(data), "--output", str(tmp_path / "run"), "--epochs", "1", "--batch_size", "4"]
    assert main([*arguments, "--held_out", "0.25"]) == 1
    printed = capsys.readouterr()
    assert "broken.png" in printed.err and "1 image could not be read" in printed.err
    assert "alpha" in printed.out and (tmp_path / "run" / "adapted.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "nowhere"}, "nowhere"),
        ({"reference": "nowhere"}, "nowhere"),
        ({"validation": "nowhere"}, "nowhere"),
        ({"held_out": 0.0}, "--validation"),
        ({"batch_size": 9, "workers": 2}, "cannot be divided among 2"),
        ({"workers": 100_000}, "give at most"),
        ({"data": "one"}, "has only one class, 'bim'"),
        ({"resume": True}, "no checkpoint"),
        ({"use_gpu": True}, "CPU build"),
    ],
)
def test_what_cannot_be_done_is_said(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "bim", tmp_path / "one" / "bim")
    if changes.get("use_gpu") and paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle has CUDA")
    with pytest.raises((RequestError, TrainingError), match=message):
        adapt(replace(task(folder, tmp_path), **changes))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"learning_rate": 1e308}, {"weight_decay": 1e308}])
def test_weights_that_the_last_step_made_infinite_are_not_kept(
    folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    one_step = replace(task(folder, tmp_path), epochs=1, batch_size=64, lock_image_tower=True, **changes)
    with pytest.raises(TrainingError, match=r"not finite after step 1: lower the learning rate"):
        adapt(one_step)
    assert not list(tmp_path.glob("**/adapted.safetensors")) and not list(tmp_path.glob("**/checkpoint.npz"))


@pytest.mark.slow
def test_damaged_classes_are_refused(adapted: adapting.Adapted, tmp_path: Path) -> None:
    state, path = read_state(adapted.path), tmp_path / "w.safetensors"
    for names, vectors, message in (
        (["bim", "drel"], state["class_vectors"], "float32"),
        (["bim", "bim", "drel"], state["class_vectors"], "twice"),
        (None, state["class_vectors"], "labels"),
        (list(KINDS), state["class_vectors"] * np.nan, "finite"),
    ):
        write_safetensors({**state, "class_vectors": vectors}, path, {"classes": names})
        with pytest.raises(WeightsError, match=message):
            Predictor(MINI, path).classify(images=[Image.new("RGB", (8, 8))])


# --- a module of its own --------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_packs_under_a_name_of_its_own(
    adapted: adapting.Adapted, folder: Path, tmp_path: Path, hub_home: Path
) -> None:
    with pytest.raises(RequestError, match="cannot be a module's name"):
        pack(MINI, tmp_path, adapted.path, name="My Clip")
    archive = pack(MINI, tmp_path, adapted.path, name="my_drawings")
    assert archive.name == f"my_drawings-{__version__}.tar.gz"
    bin_ = Path(sys.executable).parent
    subprocess.run([bin_ / "hub", "install", archive], check=True, capture_output=True, timeout=240)
    try:
        image = str(folder / "drel" / "drel3.png")
        command = [str(bin_ / "hub"), "run", "my_drawings", "--input_path", image, "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
        labels = json.loads(done.stdout)["results"][0]["labels"]
        assert labels[0]["label"] == "drel" and {item["label"] for item in labels} == set(KINDS)
    finally:
        subprocess.run(
            [bin_ / "hub", "uninstall", "my_drawings"], check=True, capture_output=True, timeout=240
        )
