"""The folder of a run: no run's results are replaced by another's, two do not mix, and none is left empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_common.adaptation.adapt import adapt, adapt_by_cache
from clip_common.adaptation.task import AdaptationTask
from clip_common.errors import ClipError, RequestError, TrainingError
from clip_common.predictor import Predictor
from clip_common.system.output import held_folder
from tests.support.drawings import write_drawings
from tests.support.refusals import refused

HEADS: dict[str, dict[str, Any]] = {
    "cache": {"head": "cache", "held_out": 0.0},
    "text": {"head": "text"},
    "probe": {"head": "probe", "lock_image_tower": True},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawings(tmp_path_factory.mktemp("drawings"), 2)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is not even loaded."""
    monkeypatch.setattr(AdaptationTask, "predictor", None)


def run(data: Path | str, output: Path, head: str, **changes: Any) -> None:
    task = AdaptationTask("clip_mini", str(data), output, **{**HEADS[head], **changes})
    (adapt_by_cache if head == "cache" else adapt)(task)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "name", ["adapted.safetensors", "figures.json", "trade_off.png", "curves.png", "checkpoint.npz"]
)
def test_results_are_not_replaced(head: str, name: str, data: Path, tmp_path: Path, no_work: None) -> None:
    (tmp_path / name).write_text("of another run")
    with pytest.raises(TrainingError) as raised:
        run(data, tmp_path, head)
    said = str(raised.value)
    assert str(tmp_path) in said and name in said and "choose another --output" in said
    assert ("--resume" in said) == (name == "checkpoint.npz" and head != "cache")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "of another run")]


def test_a_cache_run_is_not_replaced(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(data, tmp_path / "run", "cache")
    files = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    assert set(files) == {"adapted.safetensors", "figures.json", "train.npz"}
    monkeypatch.setattr(AdaptationTask, "predictor", None)
    for head, changes in (("cache", {}), ("text", {}), ("probe", {}), ("text", {"resume": True})):
        with pytest.raises(TrainingError, match=r"results of another run .*: choose another --output"):
            run(data, tmp_path / "run", head, **changes)
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == files


def test_features_that_no_run_wrote_are_not_replaced(data: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", images=np.zeros(3))
    content = (tmp_path / "train.npz").read_bytes()
    with pytest.raises(RequestError, match=r"train\.npz exists and was not written by a run: choose another"):
        run(data, tmp_path, "cache")
    with (tmp_path / "train.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(RequestError, match="was not written by a run"):
        run(data, tmp_path, "cache")
    for cut in (100, 0):
        (tmp_path / "train.npz").write_bytes(content[:cut])
        with pytest.raises(RequestError, match="was not written by a run"):
            run(data, tmp_path, "cache")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("resume", [False, True])
def test_of_two_runs_at_once_the_second_is_refused(
    head: str, resume: bool, data: Path, tmp_path: Path, no_work: None
) -> None:
    if head == "cache" and resume:
        return  # it has nothing to resume
    with (
        held_folder(tmp_path),
        pytest.raises(RequestError, match=f"another process is writing into {tmp_path}"),
    ):
        run(data, tmp_path, head, resume=resume)


def test_a_run_holds_its_folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ReachedError(Exception):
        pass

    def look(*_: object) -> None:
        with (
            pytest.raises(RequestError, match="another process is writing into"),
            held_folder(tmp_path / "run"),
        ):
            pass
        raise ReachedError

    monkeypatch.setattr(AdaptationTask, "predictor", look)
    for head in HEADS:
        with pytest.raises(ReachedError):
            run(data, tmp_path / "run", head)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("head", HEADS)
def test_a_run_that_keeps_nothing_leaves_no_folder(head: str, data: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "unreadable" / "a").mkdir(parents=True)
    (tmp_path / "unreadable" / "b").mkdir()
    for name in ("a", "b"):
        for number in range(2):
            (tmp_path / "unreadable" / name / f"{number}.png").write_bytes(b"no image")
    write_drawings(tmp_path / "one", 1, ("bim",))
    for source in (tmp_path / "nowhere", tmp_path / "one", tmp_path / "unreadable"):
        for output in (tmp_path / "new" / "run", kept):
            with pytest.raises(ClipError):
                run(source, output, head)
            assert not (tmp_path / "new").exists()
            assert not list(kept.iterdir())
    if head != "cache":
        with pytest.raises(TrainingError, match="no checkpoint"):
            run(data, tmp_path / "new", head, resume=True)
        assert not (tmp_path / "new").exists()


def test_the_command_says_it_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "image_features", None)
    (tmp_path / "adapted.safetensors").write_text("")
    said = refused(capsys, "adapt", str(data), "--head", "cache", "--output", str(tmp_path))
    assert f"clip-hub adapt: {tmp_path} holds the results of another run" in said
