"""`clip-hub`: verbs, what they say when they cannot start, and how they end."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from clip_common.cli import embed
from clip_common.cli.main import VERBS, main, parser
from clip_common.cli.options import given_options
from clip_common.config import pretrained
from clip_common.errors import ClipError
from clip_common.hub.pack import pack
from clip_common.version import __version__
from tests.support.paths import EXAMPLES, ROOT
from tests.support.refusals import refused

DOG = str(EXAMPLES / "dog.png")


def clip_hub(*argv: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "clip_common", *argv],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, timeout=240, check=False,
    )  # fmt: skip


def test_every_verb_has_its_options(capsys: pytest.CaptureFixture) -> None:
    for verb in VERBS:
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0
        assert VERBS[verb].split("`")[0][:20] in " ".join(capsys.readouterr().out.split())


def test_the_version(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"clip-hub {__version__}\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("classify x.png --batch_size 0", "--batch_size is 0, expected a whole number from 1"),
        ("classify x.png --top_k -1", "--top_k is -1, expected a whole number from 1"),
        ("classify x.png --top_k nan", "--top_k is nan"),
        ("classify x.png --use_gpu=perhaps", "--use_gpu is 'perhaps', expected True or False"),
        ("classify x.png --module clip_huge", "--module: no module is named 'clip_huge'"),
        ("embed . --output x --batch_size -3", "--batch_size is -3"),
        ("embed . --output x --part_size 0", "--part_size is 0"),
        ("embed . --output x --part_size -5", "--part_size is -5"),
        ("search dog --index x.db --top_k 0", "--top_k is 0"),
        ("search dog --index x.db --text_weight 1.5", "--text_weight is 1.5, expected 0 to 1"),
        ("search dog --index x.db --text_weight nan", "--text_weight is nan"),
        ("search dog --index x.db --min_width -1", "--min_width is -1, expected a whole number from 0"),
        ("duplicates x --threshold 2", "--threshold is 2, expected -1 to 1"),
        ("clusters x --clusters 0", "--clusters is 0, expected a whole number from 1"),
        ("evaluate . --batch_size 0", "--batch_size is 0"),
        ("adapt . --output x --seed -1", "--seed is -1, expected a whole number from 0"),
        ("adapt . --output x --epochs 0", "--epochs is 0"),
        ("adapt . --output x --learning_rate nan", "--learning_rate is nan, expected a number above 0"),
        ("adapt . --output x --learning_rate 0", "--learning_rate is 0"),
        ("adapt . --output x --learning_rate inf", "--learning_rate is inf"),
        ("adapt . --output x --weight_decay -0.1", "--weight_decay is -0.1"),
        ("adapt . --output x --held_out 0", "--held_out is 0, expected more than 0 and less than 1"),
        ("adapt . --output x --held_out 1", "--held_out is 1"),
        ("adapt . --output x --alpha 2", "--alpha is 2, expected 0 to 1"),
        ("adapt . --output x --workers 0", "--workers is 0"),
        ("adapt . --output x --save_every 0", "--save_every is 0"),
        ("serve clip_mini --port 99999", "--port is 99999, expected a port, 0 to 65535"),
        ("serve clip_mini --port -1", "--port is -1"),
        ("serve clip_mini --threads 0", "--threads is 0"),
        ("serve clip_mini --queue 0", "--queue is 0"),
        ("serve clip_mini --deadline nan", "--deadline is nan"),
        ("nonsense", "invalid choice: 'nonsense'"),
        ("weights where clip_huge", "no module is named 'clip_huge'"),
        ("classify", "--input_path is missing"),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_option(
    capsys: pytest.CaptureFixture, command: str, words: str
) -> None:
    assert words in refused(capsys, *command.split())


def test_a_name_with_a_line_break_stays_in_one_line(capsys: pytest.CaptureFixture) -> None:
    assert "no\\nwhere.png" in refused(capsys, "classify", "no\nwhere.png")


def test_quiet_leaves_results_and_errors(capfd: pytest.CaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    argv = ["classify", DOG, str(tmp_path / "bad.png"), "--labels", "dog,cat"]
    assert main(argv) == 1
    loud = capfd.readouterr()
    assert "2/2" in loud.err
    for quiet in ([*argv, "--quiet"], ["--quiet", *argv]):
        assert main(quiet) == 1
        said = capfd.readouterr()
        assert said.out == loud.out
        assert said.err.splitlines()[0] == "1 image failed:"


def test_a_flag_does_not_swallow_the_image(capsys: pytest.CaptureFixture) -> None:
    outputs = []
    for argv in (["--fast_jpeg", DOG], [DOG, "--fast_jpeg"], ["--fast_jpeg", "True", DOG]):
        assert main(["classify", "--labels", "dog,cat", *argv]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0].splitlines()[0] == DOG
    assert len(set(outputs)) == 1


def test_embed_takes_its_options_in_the_old_spelling_too() -> None:
    def read(*argv: str) -> tuple[str | None, str | None]:
        args = parser().parse_args(["embed", "x", "--output", "y", *argv])
        embed._split_engine(args)
        return args.executor, given_options(args).get("engine")

    assert read() == (None, None)
    assert read("--engine", "paddle") == (None, "paddle")
    assert read("--executor", "ray", "--engine", "paddle") == ("ray", "paddle")
    assert read("--engine", "ray", "--runtime", "paddle") == ("ray", "paddle")
    assert read("--engine", "local") == ("local", None)


def test_options_that_verbs_share_mean_the_same() -> None:
    """One name, one set of choices and one type, wherever it stands."""
    shared = {
        "--engine", "--precision", "--use_gpu", "--batch_size", "--format", "--weights", "--templates",
        "--exif_rotation", "--fast_jpeg", "--module", "--top_k", "--quiet",
    }  # fmt: skip
    settings_of_a_server = {"serve", "weights", "pack", "index", "engine", "completion"}
    forms: dict[str, set[str]] = {}
    whole = parser(complete=True)
    verbs = next(a for a in whole._actions if isinstance(a, argparse._SubParsersAction)).choices
    for verb, one in verbs.items():
        for action in one._actions:
            for name in shared.intersection(action.option_strings):
                if verb not in settings_of_a_server:
                    form = action.metavar or action.choices or action.type
                    forms.setdefault(name, set()).add(str(form).replace("'", "").replace(" ", ""))
    assert forms.keys() == shared
    forms["--engine"] = {form.strip("(){}") for form in forms["--engine"]}
    assert {name: form for name, form in forms.items() if len(form) > 1} == {}


def test_the_user_interrupts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("clip_common.cli.classify.perform", interrupt)
    assert main(["classify", DOG]) == 130
    assert capsys.readouterr().err == "clip-hub classify: interrupted\n"


def test_nobody_reads_the_output() -> None:
    """As `| head -1` does: the pipe is closed before all is written."""
    labels = ",".join(f"label number {i}" for i in range(50))
    command = [sys.executable, "-m", "clip_common", "classify", DOG, "--labels", labels, "--top_k", "50"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, timeout=240, check=False)
    os.close(writing)
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr and b"BrokenPipe" not in done.stderr


def test_wrong_names_are_errors_of_this_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ClipError, ValueError):
        with pytest.raises(error, match="no module is named 'nope'"):
            pretrained("nope")
    with pytest.raises(ClipError, match="no model card at nowhere"):
        pack(pretrained("clip_mini"), tmp_path / "dist", readme=Path("nowhere.md"))
    monkeypatch.setattr("clip_common.hub.pack._ROOT", tmp_path)
    with pytest.raises(ClipError, match="modules"):
        pack(pretrained("clip_mini"), tmp_path / "dist")


@pytest.mark.parametrize("name", ["json", "typing", "__future__", "ftfy", "argparse", "numpy", "clip_hub"])
def test_no_file_beside_the_images_is_run(name: str, tmp_path: Path) -> None:
    """`python -m` puts the current folder first; `clip-hub`, which this is the same as, does not."""
    (tmp_path / f"{name}.py").write_text("open('was_run', 'w').close(); raise SystemExit('was run')")
    done = subprocess.run(
        [sys.executable, "-m", "clip_common", "engine", "clip_mini"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "was_run").exists()


def test_it_runs_from_its_own_folder() -> None:
    """Where the package is found only there: without `site` no editable installation is."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "clip_common", "--version"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.stdout == f"clip-hub {__version__}\n", done.stderr


def test_a_current_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [sys.executable, "-m", "clip_common"]
    code = f"import os, sys; os.rmdir({str(gone)!r}); os.execv(sys.executable, sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        gone.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, "-c", code, *command, *argv],
            cwd=gone, env=environment, capture_output=True, text=True, timeout=240,
        )  # fmt: skip

    answered = run("classify", DOG, "--labels", "a dog,a cat")
    assert answered.returncode == 0 and "a dog" in answered.stdout, answered.stderr
    failed = run("embed", DOG, "--output", str(tmp_path / "out"))
    assert failed.returncode == 1
    said = "clip-hub embed: the current folder no longer exists: change to another one"
    assert failed.stderr.splitlines()[-1] == said


def test_completion_knows_verbs_and_options() -> None:
    pytest.importorskip("shtab")
    done = clip_hub("completion", "bash")
    assert done.returncode == 0, done.stderr
    script = done.stdout.decode()
    assert all(verb in script for verb in VERBS)
    assert "--labels_file" in script
    assert "--runtime" not in script  # an old spelling
    subprocess.run(["bash", "-n"], input=done.stdout, check=True, timeout=60)
