"""`evaluate`: figures equal scikit-learn's to the last digit; data sets are read as published."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="of the extra [test]")
from PIL import Image
from sklearn import metrics as judge
from sklearn.linear_model import LogisticRegression

from clip_common.cli.main import main
from clip_common.config import pretrained
from clip_common.errors import LabelError, RequestError
from clip_common.evaluation import evaluate, metrics
from clip_common.evaluation.datasets import read_captioned, read_class_names, read_labelled
from clip_common.evaluation.evaluate import Figures, linear_probe, retrieval
from clip_common.evaluation.labelled import Labelled
from clip_common.evaluation.probe import fit_probe
from clip_common.predictor import Predictor
from clip_common.weights.locate import find
from tests.support.locked import lock_folder
from tests.support.paths import ROOT

NAMES = ("bicycle", "car", "clock", "diagram", "tree", "umbrella")


def zero_shot(predictor: Predictor, data: Labelled, templates: str | None = None) -> Figures:
    """What the command does."""
    evaluate.require_classes(data)
    return evaluate.zero_shot_figures(predictor, data, evaluate.score(predictor, data, templates))


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """A folder per class: each example twice, mirrored and smaller."""
    for name in NAMES:
        folder = tmp_path / "classes" / name
        folder.mkdir(parents=True)
        with Image.open(ROOT / "examples" / f"{name}.png") as image:
            picture = image.convert("RGBA")
        picture.save(folder / "1.png")
        picture.resize((150, 150)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "2.png")
    return tmp_path / "classes"


def test_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((500, 12))
    scores /= scores.sum(axis=1, keepdims=True)
    targets = rng.integers(0, 12, 500)
    predicted = scores.argmax(axis=1)
    for k in (1, 5):
        assert metrics.top_k_accuracy(scores, targets, k) == judge.top_k_accuracy_score(
            targets, scores, k=k, labels=range(12)
        )
    assert metrics.mean_per_class_accuracy(predicted, targets) == judge.balanced_accuracy_score(
        targets, predicted
    )
    expected = judge.confusion_matrix(targets, predicted, labels=range(12))
    np.testing.assert_array_equal(metrics.confusion_matrix(predicted, targets, 12), expected)


def test_the_calibration_error_is_that_of_a_case_by_hand() -> None:
    sure = np.array([[0.95, 0.05]] * 10 + [[0.35, 0.65]] * 10)
    targets = np.array([0] * 9 + [1] + [1] * 8 + [0] * 2)  # too sure of the first, not enough of the others
    table, error = metrics.calibration(sure, targets)
    np.testing.assert_allclose(table[9], [10, 0.95, 0.9])
    np.testing.assert_allclose(table[6], [10, 0.65, 0.8])
    assert table[:, 0].sum() == 20
    assert error == pytest.approx((0.05 + 0.15) / 2)


def test_retrieval_recall() -> None:
    similarity = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.1, 0.5, 0.4]])
    relevant = np.eye(3, dtype=bool)
    assert [metrics.retrieval_recall(similarity, relevant, k) for k in (1, 2, 3)] == [1 / 3, 1.0, 1.0]


def test_zero_shot_is_what_classify_says(classes: Path) -> None:
    predictor = Predictor(pretrained("clip_mini"))
    data = read_labelled(str(classes))
    assert data.classes == list(NAMES)
    found = zero_shot(predictor, data, "a picture of a {}")
    answers = predictor.classify(
        paths=[str(path) for _, path in data.images], labels=list(NAMES), templates="a picture of a {}"
    )
    right = [
        answer[0]["label"] == NAMES[target] for answer, target in zip(answers, data.targets, strict=True)
    ]
    assert found.numbers["top-1"] == np.mean(right)
    assert found.numbers["images"] == 12
    assert found.numbers["top-1"] >= 0.5  # it knows such pictures


def test_probe_is_logistic_regression_and_better_than_chance() -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(5, 32))
    targets = rng.integers(0, 5, 400)
    features = centres[targets] + rng.normal(size=(400, 32)) * 1.5
    probe = fit_probe(features[:300], targets[:300])
    expected = LogisticRegression(C=probe.c, max_iter=1000, random_state=0).fit(features[:300], targets[:300])
    np.testing.assert_array_equal(probe.classifier.predict(features[300:]), expected.predict(features[300:]))
    assert probe.classifier.score(features[300:], targets[300:]) > 0.7
    assert 1e-6 < probe.c < 1e6


def test_command_writes_what_a_person_reads(
    classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (classes / "tree" / "broken.png").write_bytes(b"no image")
    output = tmp_path / "out"
    arguments = ["evaluate", str(classes), "--train", str(classes), "--output_dir", str(output)]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert "broken.png: not an image" in said.err and "1 image could not be read" in said.err
    figures = json.loads((output / "figures.json").read_text())
    assert figures["zero-shot"]["images"] == 12
    assert figures["linear probe"]["top-1"] == 1.0  # these are its training pictures
    assert f"| zero-shot | top-1 | {figures['zero-shot']['top-1']:.4f} |" in said.out
    for name in ("zero-shot_confusion", "zero-shot_calibration", "linear_probe_confusion"):
        with Image.open(output / f"{name}.png") as image:
            assert min(image.size) > 200


def test_figures_of_evaluate_may_be_replaced_and_no_others(
    classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "figures.json"
    path.parent.mkdir()
    path.write_text('{"zero-shot": {"top-1": 2, "errors": {}}}')
    arguments = ["evaluate", str(classes), "--output_dir", str(path.parent)]
    assert main(arguments) == 0
    assert json.loads(path.read_text())["zero-shot"]["top-1"] <= 1
    capsys.readouterr()
    monkeypatch.setattr(Predictor, "image_features", None)
    for content in (
        '{"module": "clip_mini", "before": 0.5, "errors": {}}',
        "[]",
        "no JSON",
    ):  # `adapt`'s first
        path.write_text(content)
        assert main(arguments) == 1
        assert (
            f"{path} exists and was not written by `evaluate`: choose another folder"
            in capsys.readouterr().err
        )
        assert path.read_text() == content


def test_retrieval_from_a_table(classes: Path, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "caption"])
        for name in NAMES:
            writer.writerow([f"classes/{name}/1.png", f"a {name}"])
            writer.writerow([f"classes/{name}/1.png", f"a drawing of a {name}"])
    found = retrieval(Predictor(pretrained("clip_mini")), read_captioned(str(table))).numbers
    assert (found["images"], found["captions"]) == (6, 12)
    assert found["image to text R@1"] <= found["image to text R@5"] <= found["image to text R@10"]
    assert found["text to image R@1"] >= 0.5


def test_usual_data_sets(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
    cifar = tmp_path / "cifar"
    cifar.mkdir()
    records = [
        bytes([label]) + image.transpose(2, 0, 1).tobytes()
        for label, image in zip((1, 0, 1), pixels, strict=True)
    ]
    (cifar / "test_batch.bin").write_bytes(b"".join(records))
    (cifar / "batches.meta.txt").write_text("airplane\nautomobile\n\n")
    data = read_labelled(f"cifar10:{cifar}")
    assert (data.classes, data.targets.tolist()) == (["airplane", "automobile"], [1, 0, 1])
    np.testing.assert_array_equal(np.asarray(data.images[2][1]), pixels[2])
    (cifar / "test.bin").write_bytes(b"".join(bytes([9]) + record for record in records))
    (cifar / "fine_label_names.txt").write_text("aquarium_fish\napple\n")
    fine = read_labelled(f"cifar100:{cifar}")
    assert (fine.classes, fine.targets.tolist()) == (["aquarium fish", "apple"], [1, 0, 1])
    fashion = tmp_path / "fashion"
    fashion.mkdir()
    grey = rng.integers(0, 256, (2, 28, 28), np.uint8)
    (fashion / "t10k-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 2, 28, 28) + grey.tobytes())
    )
    (fashion / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + struct.pack(">I", 2) + bytes([9, 0]))
    clothes = read_labelled(f"fashion-mnist:{fashion}")
    assert [clothes.classes[i] for i in clothes.targets] == ["ankle boot", "T-shirt"]
    np.testing.assert_array_equal(np.asarray(clothes.images[0][1])[..., 0], 255 - grey[0])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "utf-16"])
def test_tables_as_people_write_them(
    encoding: str, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "Path, label\nclasses/car/1.png, 小汽车\nclasses/tree/1.png, 001\nclasses/tree/2.png, 001 \n"
    for name, separator in (("t.CSV", ","), ("t.tsv", "\t"), ("u.csv", ";")):
        Path(name).write_bytes(rows.replace(", ", separator).encode(encoding))
        data = read_labelled(name)
        assert (data.classes, data.targets.tolist()) == (["001", "小汽车"], [1, 0, 0])
        assert [Path(str(file)).exists() for _, file in data.images] == [True] * 3
    Path("c.csv").write_bytes(rows.replace("label", "caption").encode(encoding))
    assert [caption for _, caption in read_captioned("c.csv")] == ["小汽车", "001", "001"]
    Path("classes.txt").write_bytes("小汽车\r\n\r\n 001 \r\n".encode(encoding))
    assert read_class_names(Path("classes.txt")) == ["小汽车", "001"]
    assert read_labelled("t.CSV", ["小汽车", "001"]).targets.tolist() == [0, 1, 1]


def test_a_class_named_twice_is_said(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("car\ncat\ncar\n")
    with pytest.raises(RequestError, match=r"classes\.txt: has the class 'car' twice"):
        read_class_names(tmp_path / "classes.txt")


def test_a_messy_folder_of_classes(
    classes: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("._1.png", "3.cr2", "notes.txt"):
        (classes / "tree" / name).write_bytes(b"no image")
    (classes / "tree" / "1.png").rename(classes / "tree" / "no_suffix")
    (classes / "__MACOSX").mkdir()
    odd = Path(os.fsdecode(os.fsencode(classes) + b"/caf\xe9"))
    odd.mkdir()
    (classes / "car" / "1.png").rename(odd / os.fsdecode(b"\xe9.png"))
    with caplog.at_level(logging.WARNING):
        data = read_labelled(str(classes))
    assert data.classes == sorted([*NAMES, r"caf\xe9"]) and len(data.images) == 12
    assert rf"{classes}/caf\xe9/\xe9.png" in [name for name, _ in data.images]
    assert "skipped: 1 ._* (macOS), 1 .cr2, 1 .txt" in caplog.text
    assert "__MACOSX: no images in it: not used as a class" in caplog.text
    lock_folder(monkeypatch, "clock")
    with pytest.raises(RequestError, match=r"/clock: cannot be listed \(Permission denied\)"):
        read_labelled(str(classes))


def test_a_usual_data_set_in_another_order_of_classes(tmp_path: Path) -> None:
    pixels = bytes(3 * 32 * 32)
    (tmp_path / "test_batch.bin").write_bytes(b"".join(bytes([label]) + pixels for label in (1, 0, 2)))
    (tmp_path / "batches.meta.txt").write_text("airplane\nautomobile\nbird\n")
    order = ["bird", "cat", "airplane", "automobile"]
    data = read_labelled(f"cifar10:{tmp_path}", order)
    assert [data.classes[target] for target in data.targets] == ["automobile", "airplane", "bird"]
    assert data.classes == order
    with pytest.raises(RequestError, match="has the class 'bird', which is not among"):
        read_labelled(f"cifar10:{tmp_path}", ["airplane", "automobile"])
    with pytest.raises(RequestError, match=r"two of the given classes are called 'bird'"):
        read_labelled(f"cifar10:{tmp_path}", [*order, "bird"])


def test_the_classes_of_a_usual_data_set_in_another_language(tmp_path: Path) -> None:
    """Their order is the data set's; a class of its own among them is one of its own."""
    pixels = bytes(3 * 32 * 32)
    (tmp_path / "test_batch.bin").write_bytes(b"".join(bytes([label]) + pixels for label in (1, 0, 2)))
    (tmp_path / "batches.meta.txt").write_text("airplane\nautomobile\nbird\n")
    source = f"cifar10:{tmp_path}"
    data = read_labelled(source, ["飞机", "汽车", "鸟"], may_rename=True)
    assert [data.classes[target] for target in data.targets] == ["汽车", "飞机", "鸟"]
    assert data.published is None and read_labelled(source).published == "CIFAR-10"
    own = ["bird", "airplane", "automobile"]
    assert read_labelled(source, own, may_rename=True).classes == own
    with pytest.raises(RequestError, match="has 3 classes, but 2 other names given"):
        read_labelled(source, ["飞机", "汽车"], may_rename=True)
    with pytest.raises(RequestError, match="has the class 'automobile', which is not among"):
        read_labelled(source, ["飞机", "airplane", "鸟"], may_rename=True)
    with pytest.raises(RequestError, match="has the class 'airplane', which is not among"):
        read_labelled(source, ["飞机", "汽车", "鸟"])  # as where a run's classes must be the others'


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere", "expected a folder with a folder per class"),
        ("cifar10:nowhere", "has no test_batch.bin: put the data set's own files there"),
        ("empty", "no images in it"),
        ("bad.csv", "has the columns path, class; expected path and label"),
        ("holes.csv", "line 3: path must not be empty"),
    ],
)
def test_what_cannot_be_read_is_said(
    source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("bad.csv").write_text("path,class\na.png,x\n")
    Path("holes.csv").write_text("path,label\na.png,x\n,y\n")
    with pytest.raises(RequestError, match=words):
        read_labelled(source)


def test_classes_of_any_data_set_come_in_the_order_given(classes: Path, tmp_path: Path) -> None:
    own = read_labelled(str(classes))
    turned = read_labelled(str(classes), own.classes[::-1])
    assert turned.classes == own.classes[::-1]
    assert [turned.classes[i] for i in turned.targets] == [own.classes[i] for i in own.targets]
    more = read_labelled(str(classes), ["zebra", *own.classes])
    assert [more.classes[i] for i in more.targets] == [own.classes[i] for i in own.targets]
    for given, words in (
        (own.classes[1:], "has the class 'bicycle'"),
        (["tree", *own.classes], "two of the given classes are called"),
    ):
        with pytest.raises(RequestError, match=words):
            read_labelled(str(classes), given)


def test_labels_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").write_bytes(bytes([7]) + bytes(3 * 32 * 32))
    (tmp_path / "batches.meta.txt").write_text("airplane\nautomobile\n")
    with pytest.raises(RequestError, match="CIFAR-10: 1 image, 1 label and 2 classes"):
        read_labelled(f"cifar10:{tmp_path}")


def test_published_figures_are_those_of_the_modules_own_weights(
    classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "PUBLISHED_TOP_1", {"drawings": {"clip_mini": 0.5}})
    data = replace(read_labelled(str(classes)), published="drawings")
    record = pretrained("clip_mini")
    assert zero_shot(Predictor(record), data).numbers["published top-1"] == 0.5
    other = Predictor(record, find(record).path)  # a file that may be anybody's
    assert "published top-1" not in zero_shot(other, data).numbers


@pytest.mark.parametrize("templates", ["a photo of a {c}", "openai80", ["openai", "a {}"], ["a {}", ""], []])
def test_templates_are_checked_before_any_work(
    classes: Path, templates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "image_features", None)
    with pytest.raises(LabelError, match="template"):
        zero_shot(Predictor(pretrained("clip_mini")), read_labelled(str(classes)), templates)


def test_one_class_alone_is_refused(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (classes / "car").rename(tmp_path / "one" / "car")
    data = read_labelled(str(tmp_path / "one"))
    predictor = Predictor(pretrained("clip_mini"))
    with pytest.raises(RequestError, match="only one class, 'car'"):
        zero_shot(predictor, data)
    with pytest.raises(RequestError, match="too few for a linear probe: 2 images of 1 class;"):
        linear_probe(predictor, data, data)


def test_too_few_images_for_a_probe_are_said() -> None:
    features = np.eye(4, dtype=np.float32)
    for targets in ([0, 0, 0, 0], [0, 1], [0, 0, 0, 1]):
        with pytest.raises(RequestError, match="too few"):
            for seed in range(20):  # the one of its class is held back by some
                fit_probe(features[: len(targets)], np.array(targets), seed)
