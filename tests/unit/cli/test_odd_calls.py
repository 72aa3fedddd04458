"""What strangers called: closed streams, blank values, links in a circle, names of other modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from clip_common import Predictor
from clip_common.cli.main import main
from clip_common.config import pretrained
from clip_common.errors import RequestError
from tests.support.paths import EXAMPLES, ROOT
from tests.support.refusals import refused

LABELS = ["--labels", "a dog,a cat"]


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command of `clip-hub` with redirections, as a shell runs it."""
    line = f"PYTHONPATH='{ROOT}' '{sys.executable}' -m clip_common {command}"
    return subprocess.run(
        ["bash", "-c", line], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 32), "red").save(tmp_path / name)
    return tmp_path


def test_answers_are_printed_where_standard_error_is_closed(folder: Path) -> None:
    done = shell("classify a.png b.png --labels 'a dog,a cat' 2>&-", folder)
    assert done.returncode == 0
    assert done.stdout.count("a dog") == 2


def test_a_closed_standard_output_is_one_line(folder: Path) -> None:
    done = shell("classify a.png --labels 'a dog,a cat' >&-", folder)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("clip-hub classify: standard output is closed")
    assert "Traceback" not in done.stderr


def test_a_link_in_a_circle_costs_itself_also_with_figures(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "loop.png").symlink_to("loop.png")
    figures = ["--visualization", "--output_dir", str(folder / "figures")]
    assert main(["classify", str(folder), *LABELS, *figures]) == 1
    said = capsys.readouterr()
    assert said.out.count("a dog") == 2
    assert "loop.png: " in said.err
    assert len(list((folder / "figures").iterdir())) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["embed", "x", "--output", ""],
        ["classify", "x", "--weights="],
        ["classify", "x", "--visualization", "--output_dir", ""],
        ["pack", "clip_mini", "--name", ""],
    ],
)
def test_a_blank_value_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "is blank (see clip-hub --help)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "verb",
    [
        ["evaluate", ""],
        ["adapt", "", "--output", "x"],
        ["index", "", "--index", "x"],
        ["duplicates", ""],
        ["clusters", "x", ""],
        ["serve", "clip_mini="],
    ],
)
def test_a_blank_place_is_not_the_current_folder(
    verb: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As an unset variable of a shell gives it."""
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, *verb)
    assert "blank" in said and not list(tmp_path.iterdir())


def test_behind_two_dashes_all_words_are_inputs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "a.png").rename(folder / "--odd=")
    assert main(["classify", *LABELS, "--", "--odd=", "b.png"]) == 0


@pytest.mark.parametrize("name", ["clip_vit_b32", "class"])
def test_a_module_is_not_packed_under_the_name_of_another(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", "clip_mini", "--name", name, "--output", str(tmp_path)]) == 1
    assert f"{name!r} cannot be the name of another module" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_embed_names_what_failed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.png").write_bytes(b"no image")
    assert main(["embed", str(folder), "--output", str(folder / "out")]) == 1
    assert "bad.png: not an image" in capsys.readouterr().err
    (folder / "good").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "good" / "c.png")
    (folder / "good" / "d.png").write_bytes(b"no image either")
    # Of this run's sources alone, not of what failed in the store before.
    assert main(["embed", str(folder / "good"), "--output", str(folder / "out")]) == 1
    said = capsys.readouterr().err
    assert "d.png: not an image" in said
    assert "bad.png" not in said


def test_a_predictor_by_the_modules_name() -> None:
    by_name = Predictor("clip_mini").classify(paths=[EXAMPLES / "dog.png"], labels=["a dog", "a cat"])
    by_record = Predictor(pretrained("clip_mini"))
    assert by_name == by_record.classify(paths=[EXAMPLES / "dog.png"], labels=["a dog", "a cat"])
    with pytest.raises(RequestError, match="no module is named 'clip_maxi'"):
        Predictor("clip_maxi")
