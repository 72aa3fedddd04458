"""Options given twice, places that cannot be written, and where `--quiet` may stand."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from clip_common.cli.main import main, parser
from clip_common.hub import run_command
from clip_common.predictor import Predictor
from tests.support.paths import EXAMPLES
from tests.support.refusals import refused

DOG, CAT = str(EXAMPLES / "dog.png"), str(EXAMPLES / "cat.png")


@pytest.fixture(scope="module")
def mini() -> Predictor:
    return Predictor("clip_mini")


def labels_of(document: str) -> list[set[str]]:
    return [{item["label"] for item in result["labels"]} for result in json.loads(document)["results"]]


# --- twice --------------------------------------------------------------------------------------------


def test_lists_add_up(tmp_path: Path, mini: Predictor, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.txt").write_text("a dog\na cat\n")
    (tmp_path / "two.txt").write_text("a tree\n")
    files = ["--labels_file", str(tmp_path / "one.txt"), "--labels_file", str(tmp_path / "two.txt")]
    for labels in (["--labels", "a dog,a cat", "--labels", "a tree"], files):
        argv = ["--input_path", DOG, "--input_path", CAT, *labels, "--format", "json"]
        assert main(["classify", *argv]) == 0
        printed = capsys.readouterr().out
        assert labels_of(printed) == [{"a dog", "a cat", "a tree"}] * 2
        assert labels_of(run_command.run("clip_mini", lambda **_: mini, argv)) == labels_of(printed)


def test_of_one_value_there_is_one(mini: Predictor, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["embed-text"], ["search", "--index", "x"], ["classify", "--use_gpu"]):
        said = refused(capsys, *verb, "-frost")
        assert "-frost is not an option; if it is a value, put -- before it: -- -frost" in said
    for words in (["--", "-frost"], ["-5"], ["-5 degrees"], ["a", "-"]):
        assert parser().parse_args(["embed-text", *words]).texts == [word for word in words if word != "--"]
    assert (
        parser().parse_args(["search", "--min_score", "-0.5", "a", "-", "b", "--index", "x"]).min_score
        == -0.5
    )


@pytest.mark.parametrize(
    "verb",
    [
        ["classify", DOG, "--labels"],
        ["classify", DOG, "--labels", "x", "--templates"],
        ["classify", "--input_text"],
        ["embed-text"],
        ["search", "--index", "x"],
    ],
)
def test_a_text_in_another_encoding_is_refused(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As from a script in GBK: read as it stands it would be some other text."""
    said = refused(capsys, *verb, os.fsdecode(b"caf\xe9 {}"))
    assert r"caf\xe9 {} is not in the encoding of this locale, utf-8" in said
    assert parser().parse_args([*verb, "café 狗 {}"])


def test_the_same_value_twice_is_one_value() -> None:
    args = parser().parse_args(["classify", "x", "--top_k", "3", "--top_k", "3", "--use_gpu", "--use_gpu"])
    assert args.top_k == 3 and args.use_gpu is True
    one_parser = run_command.parser("clip_mini")
    for top_k in (1, 2):
        assert one_parser.parse_args(["--top_k", str(top_k)]).top_k == top_k


def test_a_server_has_one_of_each_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert "clip_mini is given twice" in refused(capsys, "serve", "clip_mini", "clip_mini=other.pt")


# --- places for results -------------------------------------------------------------------------------

WITH_OUTPUT = [
    "classify DATA --visualization --output_dir",
    "classify DATA --explain --output_dir",
    "evaluate DATA --output_dir",
    "search words --index DATA.db --output_dir",
    "embed DATA --output",
    "adapt DATA --output",
    "pack clip_mini --output",
]


@pytest.mark.parametrize("command", WITH_OUTPUT)
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("file", "is a file, not a folder: choose another place"),
        ("file/in/it", "file is a file, not a folder"),
    ],
)
def test_a_place_that_cannot_be_is_said_before_the_work(
    command: str,
    place: str,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clip_common.predictor.Predictor._load", lambda _: pytest.fail("the work began"))
    (tmp_path / "file").write_text("")
    argv = command.replace("DATA", str(EXAMPLES)).split()
    said = refused(capsys, *argv, str(tmp_path / place))
    assert words in said and argv[-1] in said
    assert (tmp_path / "file").read_text() == ""


def test_hub_run_says_it_too(tmp_path: Path, mini: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of the default place, which no option names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip_output").write_text("")
    for given in ([], ["--output_dir", "clip_output/x"]):
        with pytest.raises(SystemExit) as ended:
            argv = ["--input_path", DOG, "--visualization", *given]
            run_command.run("clip_mini", lambda **_: mini, argv)
        assert "clip_output is a file, not a folder" in str(ended.value.code)
    assert run_command.run("clip_mini", lambda **_: mini, ["--input_path", DOG])  # it is not wanted


def test_weights_are_not_converted_for_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clip_common.weights.convert.convert", lambda *_: pytest.fail("the work began"))
    folder = tmp_path / "to.safetensors"
    folder.mkdir()
    said = refused(capsys, "weights", "convert", "x.pt", str(folder))
    assert "DST" in said and "is a folder, not a file" in said
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(
        capsys, "weights", "convert", "x.pt", str(tmp_path / "file" / "to.safetensors")
    )


def test_thresholds_are_not_fitted_for_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    said = refused(capsys, "evaluate", str(EXAMPLES), "--thresholds", str(tmp_path / "file" / "x.json"))
    assert f"--thresholds {tmp_path}/file is a file, not a folder" in said


def test_looking_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "embed", str(tmp_path / "nowhere"), "--output", str(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


# --- quiet --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    ["--quiet weights list", "weights --quiet list", "weights list --quiet", "--quiet weights --quiet list"],
)
def test_quiet_may_stand_anywhere(argv: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv.split()) == 0
    assert parser().parse_args(argv.split()).quiet is True
    assert parser().parse_args(["weights", "list"]).quiet is False
    assert "clip_mini" in capsys.readouterr().out


# --- names that would move the cursor -----------------------------------------------------------------


def test_names_are_printed_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["new\nline.png", "\x1b[2Jgone.png", "photo\u202egnp.png"]
    for name in names:
        shutil.copy(DOG, tmp_path / name)
    (tmp_path / "bad\x1b]0;title\x07\n.png").write_bytes(b"no image")
    argv = ["classify", str(tmp_path), "--labels", "a dog,a c\x1bat"]
    assert main(argv) == 1
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 9
    for shown in ("new\\nline.png", "\\x1b[2Jgone.png", "photo\\u202egnp.png"):
        assert str(tmp_path / shown) in lines
    assert "bad\\x1b]0;title\\x07\\n.png: not an image" in said.err
    assert len(said.err.splitlines()[-2:]) == 2
    for text in (said.out, said.err.rpartition("\r")[2]):
        assert not [mark for mark in text if not mark.isprintable() and mark != "\n"], ascii(text)
    assert main([*argv, "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert sorted(Path(result["path"]).name for result in document["results"]) == sorted(names)
    assert "\x1b]0;title\x07\n.png" in document["errors"][0]["error"]


def test_warnings_are_on_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "a\x1bb\nc"
    folder.mkdir()
    shutil.copy(DOG, folder)
    (folder / "notes.md").write_text("")
    assert main(["classify", str(folder), "--labels", "a,b"]) == 0
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path}/a\\x1bb\\nc: skipped: 1 .md"


def test_what_cannot_be_found_is_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no\\n\\x1b[31mwhere\\u202e.png: no such" in refused(
        capsys, "classify", "no\n\x1b[31mwhere\u202e.png"
    )
