"""`clip-hub classify` answers as `hub run` does, and without what makes that slow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clip_common.cli.main import main
from clip_common.cli.prediction import Outcome, images_of
from clip_common.config import pretrained
from clip_common.embedding.sources import items_of
from clip_common.hub import run_command
from clip_common.predictor import Predictor
from clip_common.zero_shot import explain
from tests.support.locked import lock_folder
from tests.support.paths import EXAMPLES, ROOT

DOG, CAT = str(EXAMPLES / "dog.png"), str(EXAMPLES / "cat.png")


@pytest.fixture(scope="module")
def mini() -> Predictor:
    return Predictor(pretrained("clip_mini"))


@pytest.mark.parametrize(
    "argv",
    [
        ["--input_path", DOG, "--labels", "dog,cat"],
        ["--input_path", DOG, "--labels", "dog,cat", "--templates", "openai7", "--format", "json"],
        ["--input_path", CAT, "--top_k", "3"],
        ["--input_path", CAT, "--task", "embed", "--format", "json"],
        ["--input_text", "a dog", "--input_text", "a cat"],
        ["--input_path", DOG, "--labels", "dog,cat", "--scores", "cosine", "--thresholds", "0.1，0.9"],
        ["--input_path", DOG, "--labels", "dog,cat", "--thresholds", "1", "--format", "json"],
    ],
)
def test_the_same_answer_as_hub_run(mini: Predictor, capsys: pytest.CaptureFixture, argv: list[str]) -> None:
    expected = run_command.run("clip_mini", mini.with_options, argv)
    assert main(["classify", *argv]) == 0
    assert capsys.readouterr().out == expected + "\n"


def test_images_by_their_place(capsys: pytest.CaptureFixture) -> None:
    assert main(["classify", DOG, CAT, "--labels", "dog,cat", "--format", "json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [(result["path"], result["labels"][0]["label"]) for result in results] == [
        (DOG, "dog"),
        (CAT, "cat"),
    ]


def test_a_file_whose_name_begins_as_a_home_and_a_folder_that_is_a_link(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(DOG, "~x.png")
    Path("link").symlink_to(tmp_path, target_is_directory=True)
    for given, named in (("~x.png", "~x.png"), ("link", "link/~x.png"), ("*.png", "~x.png")):
        assert main(["classify", given, "--labels", "dog,cat", "--format", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["results"][0]["path"] == named


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("x" * 300, "File name too long"),
        ("~x.png", "no such file"),
        ("a\0b", "null byte"),
        ("pipe.png", "is a pipe or a device"),
        ("/dev/null", "is a pipe or a device"),
        (DOG + "/x.png", "no such file"),
    ],
)
def test_odd_paths_are_one_line(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    assert main(["classify", given, "--labels", "dog,cat"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[-1]
    assert len(lines) <= 2


def test_a_folder_without_permission_is_named(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")  # root, who runs tests in containers, may read all

    monkeypatch.setattr(os, "scandir", refuse)
    assert main(["classify", str(tmp_path), "--labels", "dog,cat"]) == 1
    said = f"--input_path {tmp_path}: the folder cannot be listed (Permission denied)"
    assert said in capsys.readouterr().err


def test_embed_text_prints_an_embedding_for_each_text(capsys: pytest.CaptureFixture) -> None:
    assert main(["embed-text", "a dog", "a cat", "--format", "json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["text"] for result in results] == ["a dog", "a cat"]
    assert all(len(result["embedding"]) == 512 for result in results)


def test_an_image_that_fails_costs_itself(capsys: pytest.CaptureFixture) -> None:
    assert main(["classify", DOG, str(ROOT / "README.md"), "--labels", "dog,cat", "--format", "json"]) == 1
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert len(document["results"]) == len(document["errors"]) == 1
    assert "1 image failed:" in said.err


def test_none_of_these_is_said_with_what_came_nearest(
    capsys: pytest.CaptureFixture, tmp_path: Path, mini: Predictor
) -> None:
    options = ["--labels", "dog,cat", "--scores", "cosine", "--thresholds", "0.95,0.99"]
    figures = ["--visualization", "--output_dir", str(tmp_path)]
    assert main(["classify", DOG, *options, *figures]) == 0
    (answer,) = mini.classify(paths=[DOG], labels=["dog"], scores="cosine")
    score = answer[0]["score"]
    said = f"{DOG}\n  none of these (nearest: dog, score {score:.4f}, threshold 0.9500)\n"
    assert capsys.readouterr().out == said
    assert (tmp_path / "0001_dog.png").is_file()
    assert main(["classify", DOG, *options, "--format", "json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["labels"], result["nearest"]["label"]) == ([], "dog")
    assert (result["nearest"]["score"], result["nearest"]["threshold"]) == (pytest.approx(score), 0.95)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--labels", "dog,cat"], ["it is for --visualization and --explain"]),
        (["--task", "embed"], ["it is for --visualization and --explain; `clip-hub embed` saves embeddings"]),
        (["--labels", "dog,cat", "--visualization"], []),
    ],
)
def test_an_output_folder_in_which_nothing_is_saved_is_said(
    options: list[str], said: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["classify", DOG, *options, "--output_dir", str(tmp_path / "out")]) == 0
    assert caplog.messages == [f"nothing is saved in --output_dir: {end}" for end in said]
    assert (tmp_path / "out").exists() == (said == [])


def test_cosines_in_a_table(capsys: pytest.CaptureFixture, mini: Predictor) -> None:
    assert main(["classify", DOG, "--labels", "dog,cat", "--scores", "cosine", "--thresholds=-1"]) == 0
    (answer,) = mini.classify(paths=[DOG], labels=["dog", "cat"], scores="cosine")
    rows = [f"   {item['score']:.4f}  {item['label']}" for item in answer]
    assert capsys.readouterr().out.splitlines() == [DOG, *rows]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--thresholds", "nan"], "thresholds is nan, expected a number from 0 to 1"),
        (["--thresholds", "0.1,0.2,0.3"], "thresholds has length 3, for 2 labels"),
        (["--thresholds", "0,2"], "thresholds[1] is 2.0"),
        (["--scores", "cosine", "--thresholds", "-2"], "thresholds is -2.0, expected a number from -1 to 1"),
        (["--thresholds", "nowhere.json"], "nowhere.json: cannot be read (No such file"),
        (["--thresholds", DOG], "dog.png"),
        (["--task", "embed", "--scores", "cosine"], "they go with --task classify"),
    ],
)
def test_thresholds_that_cannot_be_used_are_one_line(
    capsys: pytest.CaptureFixture, options: list[str], words: str
) -> None:
    labels = [] if "embed" in options else ["--labels", "dog,cat"]
    assert main(["classify", DOG, *labels, *options]) == 1
    said = capsys.readouterr()
    assert said.out == "" and words in said.err and len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        ([], {"0001_dog_explained.png": 2}),
        (["--top_k", "1", "--visualization"], {"0001_dog_explained.png": 1, "0001_dog.png": None}),
        (["--labels", "car,tree"], {"0001_dog_explained.png": 3}),
        (["--scores", "cosine", "--thresholds", "0.99"], {"0001_dog_explained.png": 1}),
    ],
)
def test_explain_saves_heat_maps_of_the_best_labels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str], saved: dict[str, int | None]
) -> None:
    monkeypatch.setattr(explain, "COPIES", 2)
    assert (
        main(["classify", DOG, "--labels", "dog,cat", "--explain", "--output_dir", str(tmp_path), *options])
        == 0
    )
    assert {file.name for file in tmp_path.iterdir()} == set(saved)
    width, height = Image.open(tmp_path / "0001_dog_explained.png").size
    assert (width, height) == (400 * (1 + (saved["0001_dog_explained.png"] or 0)), 430)


def test_texts_are_not_explained(capsys: pytest.CaptureFixture) -> None:
    assert main(["classify", DOG, "--task", "embed", "--explain"]) == 1
    assert "--explain needs labels: it goes with --task classify" in capsys.readouterr().err


def classified(capsys: pytest.CaptureFixture, *argv: str) -> list[str]:
    assert main(["classify", *argv, "--labels", "dog,cat", "--format", "json"]) == 0
    return [result["path"] for result in json.loads(capsys.readouterr().out)["results"]]


def test_a_folder_is_read_as_embed_reads_it(
    capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.png", "sub/deep/a.png", "sub/c.PNG", "without_a_suffix"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DOG, tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path.parent)
    expected = [item.path for item in items_of([tmp_path.name])]
    assert len(expected) == 4
    for given in (tmp_path.name, f"{tmp_path.name[:-1]}?"):
        assert classified(capsys, given) == expected


def test_figures_of_an_earlier_run_are_not_its_input(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    shutil.copy(DOG, tmp_path / "dog.png")
    figures = ["--visualization", "--output_dir", str(tmp_path / "out")]
    for _ in range(2):
        assert classified(capsys, str(tmp_path), *figures) == [str(tmp_path / "dog.png")]
    assert classified(capsys, str(tmp_path / "out")) == [str(tmp_path / "out" / "0001_dog.png")]


def test_no_folder_for_figures_where_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    figures = ["--visualization", "--output_dir", str(tmp_path / "out")]
    assert main(["classify", str(tmp_path), "--labels", "dog,cat", *figures]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["broken.png"]


def test_a_glob_that_ends_with_a_slash_means_folders(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("top.png", "d/in.png"):
        shutil.copy(DOG, tmp_path / name)
    assert images_of(f"{tmp_path}/*/", None, Outcome()) == [tmp_path / "d" / "in.png"]


def test_a_match_that_cannot_be_reached_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose names can be read, but not its files."""
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(DOG, tmp_path / name)
    stat = os.stat

    def refuse(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("1.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    assert images_of(f"{tmp_path}/*/*.png", None, Outcome()) == [tmp_path / "a/1.png", tmp_path / "b/2.png"]


def test_a_folder_below_that_cannot_be_listed_is_named(
    capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(DOG, tmp_path / "dog.png")
    (tmp_path / "locked").mkdir()
    lock_folder(monkeypatch, "locked")
    assert main(["classify", str(tmp_path), "--labels", "dog,cat", "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert len(document["results"]) == 1
    assert document["errors"][0]["error"] == f"{tmp_path}/locked: cannot be listed (Permission denied)"


def test_neither_paddle_nor_paddlehub_is_imported() -> None:
    """With the engine and the labels' embeddings kept: the first call compiles, in a process of its own."""
    argv = ["classify", DOG, "--labels", "dog,cat"]
    assert main(argv) == 0
    code = (
        f"import sys; from clip_common.cli.main import main; assert main({argv}) == 0; "
        "sys.exit(', '.join({'paddle', 'paddlehub', 'pyarrow', 'matplotlib'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
