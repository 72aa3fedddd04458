"""`hub run`'s arguments and output, called in this process; `test_doors.py` runs the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clip_common.config import pretrained
from clip_common.hub import run_command
from clip_common.predictor import Predictor
from tests.parity import seeded
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def mini() -> Predictor:
    return Predictor(pretrained("clip_mini"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    seeded.image().save(made / "a.png")
    seeded.image().rotate(90, expand=True).save(made / "b.JPG", format="JPEG")
    (made / "notes.txt").write_text("not an image, and not asked for")
    return made


def run(mini: Predictor, *argv: str) -> str:
    return run_command.run("clip_mini", lambda **_: mini, list(argv))


def fails(mini: Predictor, *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        run(mini, *argv)
    assert isinstance(stop.value.code, str), "a message, so that the status is 1"
    assert "\n" not in stop.value.code
    return stop.value.code


def test_the_table_has_the_path_then_a_line_for_each_label(mini: Predictor, folder: Path) -> None:
    lines = run(mini, "--input_path", str(folder / "a.png"), "--labels", "a dog, a cat").splitlines()
    assert lines[0] == str(folder / "a.png")
    assert sorted(line.split("%  ")[1] for line in lines[1:]) == ["a cat", "a dog"]


def test_a_folder_and_a_glob(mini: Predictor, folder: Path) -> None:
    for given in (str(folder), str(folder / "*.[pJ]*")):
        document = json.loads(run(mini, "--input_path", given, "--format", "json", "--top_k", "2"))
        assert [Path(result["path"]).name for result in document["results"]] == ["a.png", "b.JPG"]
        assert all(len(result["labels"]) == 2 for result in document["results"])


def test_labels_file_with_byte_order_mark(mini: Predictor, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\ufeffa dog\r\n\r\na house, red\n", "utf-8")
    output = run(
        mini,
        "--input_path",
        str(folder / "a.png"),
        "--labels_file",
        str(tmp_path / "labels.txt"),
        "--format",
        "json",
    )
    labels = json.loads(output)["results"][0]["labels"]
    assert {item["label"] for item in labels} == {"a dog", "a house, red"}


def test_templates_may_be_repeated(mini: Predictor, folder: Path) -> None:
    common = ["--input_path", str(folder / "a.png"), "--labels", "dog,cat", "--format", "json"]
    once = json.loads(run(mini, *common, "--templates", "a {}"))
    twice = json.loads(run(mini, *common, "--templates", "a {}", "--templates", "one big {}"))
    named = json.loads(run(mini, *common, "--templates", "openai7"))
    scores = {json.dumps(found["results"][0]["labels"]) for found in (once, twice, named)}
    assert len(scores) == 3


def test_texts_and_images_are_embedded_in_their_order(mini: Predictor, folder: Path) -> None:
    output = run(
        mini, "--task", "embed", "--input_path", str(folder), "--input_text", "a dog",
        "--input_text", "a cat",
        "--format", "json",
    )  # fmt: skip
    results = json.loads(output)["results"]
    names = [result.get("text") or Path(result["path"]).name for result in results]
    assert names == ["a dog", "a cat", "a.png", "b.JPG"]
    for result in results:
        assert np.linalg.norm(result["embedding"]) == pytest.approx(1, abs=1e-5)
    table = run(mini, "--input_text", "a dog")
    assert "512 numbers" in table


def test_each_image_is_saved_with_its_scores(mini: Predictor, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "deep"
    run(mini, "--input_path", str(folder), "--visualization", "--output_dir", str(out))
    drawn = sorted(out.iterdir())
    assert [file.name for file in drawn] == ["0001_a.png", "0002_b.png"]
    with Image.open(drawn[0]) as image:
        assert image.width >= 800
        assert len(image.convert("RGB").getcolors(1 << 20)) > 1000  # the photo is in it


def test_progress_goes_to_standard_error(
    mini: Predictor, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    run(mini, "--input_path", str(folder))
    captured = capsys.readouterr()
    assert "2/2" in captured.err
    assert captured.out == ""


def test_failures_are_reported_and_the_rest_is_printed(
    mini: Predictor, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(SystemExit) as stop:
        run(mini, "--input_path", str(folder), "--format", "json")
    assert stop.value.code == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert len(document["results"]) == 2
    assert [Path(error["path"]).name for error in document["errors"]] == ["broken.png"]
    assert "broken.png" in document["errors"][0]["error"]
    assert "1 image failed" in captured.err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "--input_path is missing"),
        (["--input_path", "nowhere/*.png"], "nowhere/*.png"),
        (["--input_path", "IMAGE", "--labels", "a,,b"], "label 1 is blank"),
        (["--input_path", "IMAGE", "--labels", "a,b,a"], "given twice"),
        (["--input_path", "IMAGE", "--labels", ""], "label 0 is blank"),
        (["--input_path", "IMAGE", "--labels_file", "/no/file"], "/no/file"),
        (["--input_path", "IMAGE", "--labels", "a", "--labels_file", "x"], "not both"),
        (["--input_path", "IMAGE", "--labels", "a", "--templates", "x"], "has no {}"),
        (["--input_path", "IMAGE", "--top_k", "0"], "--top_k is 0"),
        (["--input_path", "IMAGE", "--top_k", "many"], "many"),
        (["--input_path", "IMAGE", "--batch_size", "0"], "batch_size is 0"),
        (["--input_path", "IMAGE", "--colour", "red"], "--colour"),
        (["--input_path", "IMAGE", "--use_gpu"], "CPU build"),
        (["--input_path", "IMAGE", "--use_gpu", "True"], "CPU build"),
        (["--input_path", "IMAGE", "--input_text", "a dog"], "--task embed"),
        (["--task", "embed", "--input_path", "IMAGE", "--labels", "a"], "go with --task classify"),
        (["--task", "embed", "--input_text", "word " * 100], "the limit is 77"),
        (["--task", "embed", "--input_path", "IMAGE", "--visualization"], "goes with --task classify"),
        (["--input_path", "IMAGE", "--visualization", "--output_dir", "/dev/null/x"], "/dev/null/x"),
    ],
)
def test_what_cannot_start_is_one_line(mini: Predictor, folder: Path, argv: list[str], words: str) -> None:
    assert words in fails(mini, *[str(folder / "a.png") if word == "IMAGE" else word for word in argv])


def test_an_empty_folder(mini: Predictor, tmp_path: Path) -> None:
    assert "has no images" in fails(mini, "--input_path", str(tmp_path))


def test_the_engine_is_chosen_by_name() -> None:
    asked = []

    def maker(**options: Any) -> Predictor:
        asked.append(options)
        return Predictor(pretrained("clip_mini"))

    for argv in ([], ["--engine", "paddle", "--precision", "float32"]):
        run_command.run(
            "clip_mini", maker, ["--input_path", str(ROOT / "examples/cat.png"), "--labels", "a", *argv]
        )
    assert asked == [{}, {"engine": "paddle", "precision": "float32"}]
    with pytest.raises(SystemExit, match="invalid choice: 'tpu'"):
        run_command.run("clip_mini", maker, ["--engine", "tpu"])
