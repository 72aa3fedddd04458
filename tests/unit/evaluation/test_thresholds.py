"""Fitted thresholds, and figures of images with several labels: scikit-learn's, and right for tiny data."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clip_common.cli.main import main
from clip_common.config import pretrained
from clip_common.errors import RequestError
from clip_common.evaluation import datasets, metrics
from clip_common.evaluation.datasets import read_multi_labelled
from clip_common.evaluation.evaluate import multi_label_figures, score
from clip_common.evaluation.report import draw_thresholds, thresholds_table
from clip_common.evaluation.thresholds import fit_threshold, fit_thresholds
from clip_common.predictor import Predictor
from clip_common.system.text_files import Table, read_table
from clip_common.zero_shot.thresholds import Thresholds
from tests.support.paths import EXAMPLES

NAMES = ("bicycle", "car", "diagram", "tree")


def random_scores(rng: np.random.Generator, n: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    scores = rng.normal(size=n)
    truth = scores + rng.normal(size=n) > 0.5
    truth[:2] = True, False
    return (np.round(scores, 1) if ties else scores), truth


# --- figures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 5, 40, 500])
def test_average_precision_is_that_of_scikit_learn(n: int, ties: bool) -> None:
    judge = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(n)
    for _ in range(20):
        scores, truth = random_scores(rng, n, ties)
        assert metrics.average_precision(scores, truth) == pytest.approx(
            judge.average_precision_score(truth, scores), abs=1e-12
        )
        found, precision, recall = metrics.precision_recall(scores, truth)
        expected = judge.precision_recall_curve(truth, scores)  # lowest score first, and (1, 0) at the end
        np.testing.assert_array_equal(found[::-1], expected[2])
        np.testing.assert_allclose(precision[::-1], expected[0][:-1], atol=1e-12)
        np.testing.assert_allclose(recall[::-1], expected[1][:-1], atol=1e-12)


# --- one threshold ---------------------------------------------------------------------------------------


def f1(scores: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    reached = scores >= threshold
    return 2 * (reached & truth).sum() / (reached.sum() + truth.sum())


@pytest.mark.parametrize("ties", [False, True])
def test_no_threshold_has_a_better_f1(ties: bool) -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 10, 60):
        for _ in range(20):
            scores, truth = random_scores(rng, n, ties)
            scores /= 10  # as cosines are
            threshold = fit_threshold(scores, truth)
            assert threshold is not None
            best = max(f1(scores, truth, score) for score in scores)
            assert f1(scores, truth, threshold) == pytest.approx(best)


def test_a_threshold_stands_between_two_scores() -> None:
    scores, truth = np.array([0.4, 0.3, 0.1, 0.0]), np.array([True, True, False, False])
    assert fit_threshold(scores, truth) == pytest.approx(0.2)


def test_of_equal_ones_the_highest_is_taken() -> None:
    # At 0.5 precision 1 and recall 1/2, at 0.2 precision 1/2 and recall 1: the same F1.
    scores, truth = np.array([0.5, 0.4, 0.3, 0.2]), np.array([True, False, False, True])
    assert f1(scores, truth, 0.5) == f1(scores, truth, 0.2)
    assert fit_threshold(scores, truth) == pytest.approx(0.45)


def test_equal_scores_stand_or_fall_together() -> None:
    truth = np.array([True, False, True, False])
    threshold = fit_threshold(np.full(4, 0.25), truth)
    assert threshold is not None and 0.249 < threshold < 0.25
    assert fit_threshold(np.full(4, -1.0), truth) == -1.0


def test_the_most_recall_at_a_precision() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    truth = np.array([True, False, True, True, False, False])
    assert fit_threshold(scores, truth, 0.7) == pytest.approx(0.55)  # 3 of 4, all of them
    assert fit_threshold(scores, truth, 0.8) == pytest.approx(0.85)  # 1 of 1
    assert fit_threshold(-scores, truth, 0.8) is None


# --- of all labels ---------------------------------------------------------------------------------------


def example(n: int = 60) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images of which "easy" and "hard" are often true, "rare" of four, "never" of none, "always" of all."""
    rng = np.random.default_rng(3)
    truth = rng.random((n, 5)) < 0.4
    truth[:, 2] = np.arange(n) < 4
    truth[:, 3], truth[:, 4] = False, True
    scores = 0.2 + 0.05 * truth + rng.normal(size=truth.shape) * [0.001, 0.04, 0.001, 0.01, 0.01]
    return scores, truth, ["easy", "hard", "rare", "never", "always"]


def test_labels_with_too_few_images_get_none() -> None:
    fitted = fit_thresholds(*example())
    assert list(fitted.fits) == ["easy", "hard"]
    assert fitted.refused == {
        "rare": "4 images with it, at least 5 are needed",
        "never": "0 images with it, at least 5 are needed",
        "always": "0 images without it, at least 5 are needed",
    }
    scores, truth, labels = example()
    with pytest.raises(RequestError, match="no label can get a threshold; 'rare': 4 images"):
        fit_thresholds(scores[:, 2:], truth[:, 2:], labels[2:])


def test_the_figures_of_a_threshold_are_what_it_gives() -> None:
    scores, truth, labels = example()
    fitted = fit_thresholds(scores, truth, labels)
    for label, fit in fitted.fits.items():
        i = labels.index(label)
        reached = scores[:, i] >= fit.threshold
        assert fit.positives == truth[:, i].sum()
        assert fit.precision == (reached & truth[:, i]).sum() / reached.sum()
        assert fit.recall == (reached & truth[:, i]).sum() / truth[:, i].sum()
    assert fitted.fits["easy"].precision == fitted.fits["easy"].held_back_recall == 1
    assert fitted.fits["hard"].held_back_recall <= fitted.fits["hard"].recall


def test_images_held_back_are_judged_without_themselves() -> None:
    """Scores that say nothing: on the images they are fitted to thresholds look better than they are."""
    rng = np.random.default_rng(5)
    truth = np.arange(400) % 2 == 0
    scores = rng.normal(size=(400, 20)) / 10
    fitted = fit_thresholds(scores, np.tile(truth[:, None], 20), [f"label {i}" for i in range(20)], 0.6)
    fits = list(fitted.fits.values())
    assert all(fit.precision >= 0.6 for fit in fits)
    held_back = [fit.held_back_precision for fit in fits if fit.held_back_precision is not None]
    assert np.mean(held_back) < 0.56


def test_a_precision_that_no_threshold_gives_is_said() -> None:
    scores, truth, labels = example()
    fitted = fit_thresholds(scores[:, :2], truth[:, :2], labels[:2], 0.999)
    assert fitted.fits["easy"].precision == 1
    assert all(fit.precision >= 0.999 for fit in fitted.fits.values())
    with pytest.raises(RequestError, match=r"'x': no threshold gives the precision 0\.9 on these images"):
        fit_thresholds(-scores[:, :1], truth[:, :1], ["x"], 0.9)


def test_two_labels_of_one_name_are_refused() -> None:
    scores, truth, _ = example()
    with pytest.raises(RequestError, match="two labels are called 'missile'"):
        fit_thresholds(scores[:, :2], truth[:, :2], ["missile", "missile"])


def test_many_labels_and_odd_names_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((50, 60)) < 0.3
    scores = 0.2 + 0.1 * truth + rng.normal(size=truth.shape) * 0.05
    labels = ["狗 $x^2$", "line\nbreak", *(f"label {i}" for i in range(58))]
    fitted = fit_thresholds(scores, truth, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_thresholds(fitted, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert min(image.size) > 500
    assert len(thresholds_table(fitted).splitlines()) == 2 + 60 + 1  # a line break in a label is none there


# --- images with several labels --------------------------------------------------------------------------


def table(path: Path, *rows: str) -> str:
    path.write_text("path,labels\n" + "\n".join(rows) + "\n", "utf-8")
    return str(path)


def test_a_table_of_images_with_several_labels(tmp_path: Path) -> None:
    source = table(tmp_path / "x.csv", "a.png,dog|cat", "b.png,", "c.png, cat | car", "d.png,cat|cat")
    data = read_multi_labelled(source)
    assert data.classes == ["car", "cat", "dog"]
    assert data.truth.tolist() == [
        [False, True, True],
        [False] * 3,
        [True, True, False],
        [False, True, False],
    ]
    assert data.images[0][1] == tmp_path / "a.png"
    more = read_multi_labelled(source, ["dog", "zebra", "cat", "car"])
    assert more.truth.sum(axis=0).tolist() == [1, 0, 3, 1]
    with pytest.raises(RequestError, match="has the label 'car', which is not among the classes given"):
        read_multi_labelled(source, ["dog", "cat"])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["a.png,dog", "a.png,cat"], "line 3: a.png is also on line 2: put all its labels into one row"),
        ([",dog"], "line 2: path must not be empty"),
        (["a.png,", "b.png,|"], "no image has a label"),
    ],
)
def test_a_table_that_cannot_be_used_is_said(tmp_path: Path, rows: list[str], words: str) -> None:
    with pytest.raises(RequestError, match=words.replace("|", r"\|")):
        read_multi_labelled(table(tmp_path / "x.csv", *rows))


@pytest.mark.parametrize("columns", ["path,labels", "path,label"])
def test_a_table_is_read_once(
    columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read: list[Path] = []

    def noted(path: Path) -> Table:
        read.append(path)
        return read_table(path)

    monkeypatch.setattr(datasets, "read_table", noted)
    (tmp_path / "x.csv").write_text(f"{columns}\n{EXAMPLES}/dog.png,dog\n{EXAMPLES}/cat.png,cat\n")
    assert main(["evaluate", str(tmp_path / "x.csv")]) == 0
    assert read == [tmp_path / "x.csv"]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that show one thing or two beside each other, and some that show neither, in a table."""
    folder = tmp_path_factory.mktemp("several")
    things = {}
    for name in NAMES:
        with Image.open(EXAMPLES / f"{name}.png") as image:
            things[name] = image.convert("RGBA").resize((110, 110))
    rows = []
    for turn in range(6):
        for i, first in enumerate(NAMES):
            second = NAMES[(i + turn) % len(NAMES)]
            shown = {first} if turn % 2 else {first, second}
            canvas = Image.new("RGB", (224, 224), (250 - 5 * turn,) * 3)
            for k, name in enumerate(sorted(shown)):
                canvas.paste(things[name], (3 * turn + 105 * k, 40 + 4 * turn), things[name])
            canvas.save(folder / f"{turn}{i}.png")
            rows.append(f"{turn}{i}.png,{'|'.join(sorted(shown))}")
    Image.new("RGB", (224, 224), "grey").save(folder / "plain.png")
    table(folder / "several.csv", *rows, "plain.png,")
    return folder / "several.csv"


def test_mean_average_precision_is_that_of_scikit_learn(several: Path) -> None:
    judge = pytest.importorskip("sklearn.metrics")
    predictor = Predictor(pretrained("clip_mini"))
    data = read_multi_labelled(str(several), [*NAMES, "zebra"])
    found = multi_label_figures(data, score(predictor, data, "a picture of a {}")).numbers
    answers = predictor.classify(
        paths=[str(path) for _, path in data.images], labels=data.classes, templates="a picture of a {}",
        scores="cosine", top_k=9,
    )  # fmt: skip
    by_label = [{item["label"]: item["score"] for item in answer} for answer in answers]
    scores = np.array([[one[label] for label in NAMES] for one in by_label])
    expected = judge.average_precision_score(data.truth[:, :4], scores, average="macro")
    assert found["mean average precision"] == pytest.approx(expected, abs=1e-9)
    assert (found["images"], found["images with no label"]) == (25, 1)
    assert (found["labels"], found["labels of no image"]) == (5, 1)


def test_from_labelled_images_to_answers(
    several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fitted" / "thresholds.json"
    output = tmp_path / "report"
    assert main(["evaluate", str(several), "--thresholds", str(path), "--output_dir", str(output)]) == 0
    said = capsys.readouterr()
    assert "| several labels | mean average precision | 0." in said.out
    assert "\n| mean | | 0." in said.out
    assert str(path) in said.err
    document = json.loads(path.read_text("utf-8"))
    fitted = Thresholds.read(path)
    assert (document["fitted_to"], document["images"], list(fitted.values)) == ("best F1", 25, list(NAMES))
    for label in NAMES:
        numbers = document["labels"][label]
        assert f"| {label} | {numbers['positives']} | {numbers['average_precision']:.4f} |" in said.out
    with Image.open(path.with_suffix(".png")) as image:
        assert min(image.size) > 200

    figures = json.loads((output / "figures.json").read_text("utf-8"))["several labels"]
    assert np.mean(list(figures["average precision"].values())) == figures["mean average precision"]
    assert figures["average precision"]["car"] == document["labels"]["car"]["average_precision"]
    with Image.open(output / "several_labels_average_precision.png") as image:
        assert min(image.size) > 150

    # Those images that the file counts are those that `classify` names, with nothing but the file.
    assert main(["classify", str(several.parent), "--thresholds", str(path), "--format", "json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    truth = dict(row.split(",") for row in several.read_text().splitlines()[1:])
    for label in NAMES:
        named = {Path(one["path"]).name for one in results if label in [x["label"] for x in one["labels"]]}
        right = {name for name, labels in truth.items() if label in labels.split("|")}
        assert len(named & right) / len(named) == document["labels"][label]["precision"]
        assert len(named & right) / len(right) == document["labels"][label]["recall"]


def test_a_label_without_threshold_is_said(several: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "classes.txt").write_text("\n".join([*NAMES, "zebra"]))
    path = tmp_path / "x.json"
    classes = ["--classes_file", str(tmp_path / "classes.txt"), "--min_precision", "0.6"]
    assert main(["evaluate", str(several), *classes, "--thresholds", str(path)]) == 0
    assert "no threshold for 'zebra': 0 images with it" in capsys.readouterr().err
    document = json.loads(path.read_text())
    assert document["fitted_to"] == "precision 0.6"
    assert "zebra" in document["without_threshold"] and "zebra" not in document["labels"]
    for fit in document["labels"].values():
        assert fit["precision"] >= 0.6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--min_precision", "0.9"], "goes with --thresholds FILE"),
        (["--retrieval", "--thresholds", "x.json"], "--thresholds is for labels, --retrieval for captions"),
        (["--thresholds", "x.txt"], "--thresholds x.txt: expected the name of a .json file to write"),
    ],
)
def test_options_that_do_not_go_together(several: Path, options: list[str], words: str, capsys: Any) -> None:
    assert main(["evaluate", str(several), *options]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("labels", [("tree", "Tree"), ("tree", " \u200b")])
def test_labels_that_classify_refuses_are_refused_before_any_work(
    several: Path, labels: tuple[str, str], tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Predictor, "image_features", None)
    source = table(
        tmp_path / "x.csv", *(f"{several.parent}/00.png{i},{label}" for i, label in enumerate(labels))
    )
    assert main(["evaluate", source, "--thresholds", str(tmp_path / "x.json")]) == 1
    assert "label" in capsys.readouterr().err


def test_a_file_of_another_kind_is_not_replaced(
    several: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Predictor, "image_features", None)
    (tmp_path / "annotations.json").write_text('{"images": []}')
    (tmp_path / "dog.png").write_bytes(b"a photograph")
    for name, words in (
        ("annotations.json", "annotations.json exists and is not a file of thresholds: choose another name"),
        ("dog.json", f"its plot would replace {tmp_path / 'dog.png'}: choose another name"),
    ):
        assert main(["evaluate", str(several), "--thresholds", str(tmp_path / name)]) == 1
        assert words in capsys.readouterr().err
    assert (tmp_path / "annotations.json").read_text() == '{"images": []}'
    assert {file.name for file in tmp_path.iterdir()} == {"annotations.json", "dog.png"}


def test_thresholds_are_fitted_again_into_their_file(several: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.touch()  # as `mktemp` leaves it
    for _ in range(2):
        assert main(["evaluate", str(several), "--thresholds", str(path)]) == 0
        assert list(Thresholds.read(path).values) == list(NAMES)
