"""The same numbers through every door: `hub.Module`, `hub run`, and a really started `hub serving`."""

from __future__ import annotations

import base64
import inspect
import io
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests

from clip_common.config import RN50, RN101, VIT_B32, ClipConfig
from clip_common.predictor import Predictor
from clip_common.system.file_names import read_shown_name
from clip_common.version import __version__
from clip_common.zero_shot.explain import explain
from clip_common.zero_shot.thresholds import Thresholds
from tests.parity import seeded
from tests.parity.compare import EMBEDDING_BOUND, SCORE_BOUND
from tests.parity.make_golden import golden_file
from tests.parity.reference import available, save_torchscript
from tests.support.checkpoints import Checkpoints
from tests.support.paths import BIN, ROOT
from tests.support.processes import free_port, hub_run, start_server, stop_server

MODULES = {"clip_rn50": RN50, "clip_rn101": RN101, "clip_vit_b32": VIT_B32}
EACH = pytest.mark.parametrize("name", MODULES)


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    seeded.image().save(path)
    return path


def golden(config: ClipConfig) -> dict[str, np.ndarray]:
    return dict(np.load(golden_file(config)))


def assert_scores(answer: list[dict[str, Any]], config: ClipConfig) -> None:
    """An answer for the image and the three labels is the reference's."""
    expected = dict(zip(seeded.LABELS, golden(config)["scores"].tolist(), strict=True))
    assert {item["label"] for item in answer} == set(expected)
    assert [item["score"] for item in answer] == sorted((item["score"] for item in answer), reverse=True)
    for item in answer:
        assert abs(item["score"] - expected[item["label"]]) <= SCORE_BOUND


def assert_vectors(images: Any, texts: Any, config: ClipConfig) -> None:
    """Unit vectors of the image and of the seeded texts are the reference's."""
    known = golden(config)
    text = known["text"] / np.linalg.norm(known["text"], axis=1, keepdims=True)
    assert np.abs(np.array(images)[0] - known["picture"]).max() <= EMBEDDING_BOUND
    assert np.abs(np.array(texts) - text).max() <= EMBEDDING_BOUND


# --- hub.Module --------------------------------------------------------------------------------------


@EACH
def test_hub_module(name: str, hub_home: Path, picture: Path, checkpoints: Checkpoints) -> None:
    import paddlehub as hub

    module = hub.Module(name=name, weights=str(checkpoints(MODULES[name])))
    image = seeded.image()
    bgr = np.asarray(image)[:, :, ::-1]
    answers = module.classify(
        images=[image, bgr, picture.read_bytes()], paths=[picture], labels=seeded.LABELS
    )
    assert len(answers) == 4
    for answer in answers:
        assert_scores(answer, MODULES[name])
    vectors = module.embed(paths=[str(picture)], texts=seeded.TEXTS)
    assert vectors["images"].dtype == vectors["texts"].dtype == np.float32
    assert_vectors(vectors["images"], vectors["texts"], MODULES[name])


def test_module_from_the_tree_is_documented_and_lazy() -> None:
    import paddle
    import paddlehub as hub

    module = hub.Module(directory=str(ROOT / "modules" / "clip_vit_b32"), weights="/nowhere.pt")
    signature = inspect.signature(module.classify)
    assert list(signature.parameters)[-9:] == [
        "images", "paths", "labels", "templates", "batch_size", "use_gpu", "top_k", "scores", "thresholds",
    ]  # fmt: skip
    assert "softmax" in (inspect.getdoc(module.classify) or "")
    assert "the same space" in (inspect.getdoc(module.embed) or "")
    with pytest.raises(ValueError, match=r"no weights file at /nowhere\.pt"):
        module.embed(texts=["a dog"])
    assert paddle.in_dynamic_mode()


def test_two_modules_in_one_process(hub_home: Path, picture: Path) -> None:
    import paddlehub as hub

    first = hub.Module(name="clip_mini")
    second = hub.Module(directory=str(ROOT / "modules" / "clip_mini"))
    assert first.classify(paths=[picture]) == second.classify(paths=[picture])


@pytest.mark.parametrize("name", [*MODULES, "clip_mini"])
def test_module_file_is_thin(name: str) -> None:
    assert len((ROOT / "modules" / name / "module.py").read_text().splitlines()) <= 65


# --- hub run -----------------------------------------------------------------------------------------


@EACH
def test_hub_run(name: str, hub_home: Path, picture: Path, checkpoints: Checkpoints) -> None:
    weights = str(checkpoints(MODULES[name]))
    done = hub_run(
        name, "--input_path", str(picture), "--labels", ",".join(seeded.LABELS),
        "--weights", weights, "--format", "json", cwd=picture.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["errors"] == []
    assert [result["path"] for result in document["results"]] == [str(picture)]
    assert_scores(document["results"][0]["labels"], MODULES[name])


@pytest.mark.skipif(not available(), reason="needs torch and openai-clip; CI installs both")
@EACH
def test_live_hub_run_of_an_official_archive(
    name: str, hub_home: Path, picture: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "official.pt"
    save_torchscript(seeded.state(MODULES[name]), archive)
    done = hub_run(
        name, "--input_path", str(picture), "--labels", ",".join(seeded.LABELS),
        "--weights", str(archive), "--format", "json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_scores(json.loads(done.stdout)["results"][0]["labels"], MODULES[name])


def test_hub_run_reports_failures_at_the_end(hub_home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        seeded.image().save(folder / f"{number}.png")
    (folder / "1.png").write_bytes(b"this is no image")
    done = hub_run("clip_mini", "--input_path", str(folder), "--format", "json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert [Path(result["path"]).name for result in document["results"]] == ["0.png", "2.png"]
    assert [Path(error["path"]).name for error in document["errors"]] == ["1.png"]
    assert "1 image failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_hub_run_on_a_console_that_is_not_utf8(hub_home: Path, tmp_path: Path) -> None:
    names = ["a.png", os.fsdecode(b"caf\xe9.png"), "照片.png"]
    for name in names:
        seeded.image().save(tmp_path / name)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    command = [
        str(BIN / "hub"),
        "run",
        "clip_mini",
        "--input_path",
        str(tmp_path),
        "--labels",
        "狗,café",
        "--top_k",
        "1",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    shown = read_shown_name(done.stdout.decode("ascii"))
    assert [line for line in shown.splitlines() if line[0] != " "] == [str(tmp_path / name) for name in names]


def test_hub_run_whose_output_nobody_reads(hub_home: Path, tmp_path: Path) -> None:
    seeded.image().save(tmp_path / "a.png")
    reading, writing = os.pipe()
    os.close(reading)
    command = [str(BIN / "hub"), "run", "clip_mini", "--input_path", str(tmp_path / "a.png")]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=240, check=False)
    os.close(writing)
    assert b"Traceback" not in done.stderr and b"BrokenPipe" not in done.stderr


def test_hub_run_that_cannot_start_says_so_in_one_line(hub_home: Path, tmp_path: Path) -> None:
    done = hub_run("clip_mini", "--input_path", "missing.png", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert (
        last == "hub run clip_mini: --input_path missing.png: no such file or folder, and no match as a glob"
    )
    assert "Traceback" not in done.stderr


# --- hub serving -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(
    hub_home: Path, checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """One server with all four modules, their weights named in a config file, as users do it."""
    folder = tmp_path_factory.mktemp("serving")
    port = free_port()
    modules: dict[str, Any] = {"clip_mini": {"init_args": {"version": __version__}, "predict_args": {}}}
    for name, config in MODULES.items():
        init = {"version": __version__, "weights": str(checkpoints(config))}
        modules[name] = {"init_args": init, "predict_args": {"batch_size": 8}}
    settings = {"modules_info": modules, "port": port, "use_multiprocess": False}
    (folder / "config.json").write_text(json.dumps(settings))
    process = start_server(["-c", str(folder / "config.json")], port, folder / "log.txt")
    yield f"http://127.0.0.1:{port}"
    stop_server(process)


def ask(server: str, name: str, body: Any) -> dict[str, Any]:
    reply = requests.post(f"{server}/predict/{name}", json=body, timeout=240)
    assert reply.status_code == 200
    return reply.json()


def encoded_picture() -> str:
    stream = io.BytesIO()
    seeded.image().save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


@EACH
def test_serving_classifies_and_embeds(name: str, server: str) -> None:
    reply = ask(server, name, {"images": [encoded_picture()], "labels": seeded.LABELS})
    assert (reply["status"], reply["msg"]) == ("000", "")
    assert_scores(reply["results"][0], MODULES[name])
    reply = ask(server, name, {"images": [encoded_picture()], "texts": seeded.TEXTS})
    assert_vectors(reply["results"]["images"], reply["results"]["texts"], MODULES[name])
    reply = ask(server, name, {"images": [encoded_picture()], "task": "embed"})
    assert reply["results"]["texts"] is None
    assert len(reply["results"]["images"]) == 1


def test_serving_names_what_is_true_and_nothing_else(server: str) -> None:
    body = {"images": [encoded_picture()], "labels": seeded.LABELS, "scores": "cosine", "thresholds": -1}
    every = ask(server, "clip_mini", body)["results"][0]
    assert {item["label"] for item in every} == set(seeded.LABELS)
    above_the_best = (every[0]["score"] + 1) / 2
    assert ask(server, "clip_mini", {**body, "thresholds": above_the_best})["results"] == [[]]


def test_serving_explains(server: str) -> None:
    photo = ROOT / "examples" / "photo_dog.jpg"
    image, labels = base64.b64encode(photo.read_bytes()).decode(), ["a dog", "a cat"]
    (answer,) = ask(server, "clip_mini", {"images": [image], "labels": labels, "explain": 1})["results"]
    (heat,) = explain(Predictor("clip_mini"), photo, labels).values()
    assert np.abs(np.array(answer[0]["heat"]) - heat).max() < 1e-5
    assert set(answer[1]) == {"label", "score"}


def test_serving_answers_with_a_file_of_thresholds(hub_home: Path, tmp_path: Path) -> None:
    """What `evaluate --thresholds` wrote, as the documentation says: in the config file's `predict_args`."""
    mini, photo = Predictor("clip_mini"), ROOT / "examples" / "photo_dog.jpg"
    values = {"a dog": -1.0, "a cat": 1.0}
    fitted = Thresholds("clip_mini", mini.weights_sha256, ("a photo of {}",), "cosine", values)
    init, port = {"version": __version__, "weights": None}, free_port()
    module = {"init_args": init, "predict_args": {"thresholds": fitted.document()}}
    (tmp_path / "config.json").write_text(json.dumps({"modules_info": {"clip_mini": module}, "port": port}))
    process = start_server(["-c", str(tmp_path / "config.json")], port, tmp_path / "log.txt")
    url, image = f"http://127.0.0.1:{port}", base64.b64encode(photo.read_bytes()).decode()
    try:
        (found,) = ask(url, "clip_mini", {"images": [image]})["results"]
        own = {"images": [image], "labels": ["a cat", "a car"], "thresholds": None}
        others = ask(url, "clip_mini", own)["results"][0]
        vectors = ask(url, "clip_mini", {"texts": ["a dog"], "thresholds": None})["results"]["texts"]
    finally:
        stop_server(process)
    (expected,) = mini.classify(paths=[photo], thresholds=fitted)
    assert [item["label"] for item in found] == ["a dog"]
    assert found[0]["score"] == pytest.approx(expected[0]["score"], abs=1e-5)
    assert {item["label"] for item in others} == {"a cat", "a car"} and len(vectors) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"paths": ["/etc/passwd"]}, "unknown field 'paths'"),
        ({"images": ["/etc/passwd"], "labels": ["a"]}, "images[0] is not base64"),
        ({"images": ["http://127.0.0.1/x.png"], "labels": ["a"]}, "images[0] is not base64"),
        ({"images": [base64.b64encode(b"no image").decode()]}, "images[0]: not an image"),
        ({"images": []}, "images is empty"),
        ({}, "nothing to classify"),
        ({"images": ["aGk="], "texts": ["a"], "labels": ["b"]}, "'labels' does not go with"),
        ({"images": "aGk="}, "field 'images'"),
        ({"images": ["aGk="], "top_k": 0}, "field 'top_k'"),
        ({"images": ["aGk="], "labels": ["a", "a"]}, "given twice"),
        ({"images": ["aGk="], "use_gpu": True, "labels": ["a"]}, "use_gpu is set"),
        ({"texts": ["word " * 200]}, "the limit is 77"),
        (
            {"images": [encoded_picture()], "labels": ["a"], "thresholds": "/etc/passwd"},
            "'thresholds' is a str",
        ),
    ],
)
def test_serving_refuses_and_goes_on(server: str, body: dict[str, Any], words: str) -> None:
    reply = ask(server, "clip_mini", body)
    assert reply["status"] == "101"
    assert words in reply["msg"]
    assert ask(server, "clip_mini", {"texts": ["a dog"]})["status"] == "000"


CLIENTS = 4


def test_serving_with_several_processes(hub_home: Path, tmp_path: Path) -> None:
    port = free_port()
    command = ["-m", "clip_mini", "-p", str(port), "--use_multiprocess", "--workers", "2"]
    process = start_server(command, port, tmp_path / "log.txt")
    try:
        body = {"images": [encoded_picture()], "labels": seeded.LABELS}
        url = f"http://127.0.0.1:{port}"
        replies = [ask(url, "clip_mini", body)["results"] for _ in range(6)]
        lost = _lose_a_worker(process, lambda: ask(url, "clip_mini", body)["results"] == replies[0])
        after = [ask(url, "clip_mini", body)["results"] for _ in range(6)]
    finally:
        stop_server(process)
    assert all(reply == replies[0] for reply in [*replies, *after])
    assert len(replies[0][0]) == 3
    assert lost <= CLIENTS  # what was in flight


def _lose_a_worker(process: subprocess.Popen, ask_once: Callable[[], bool]) -> int:
    """Kill a server's worker while it is asked, and wait for another; how many requests got no answer."""
    before = {child.pid for child in psutil.Process(process.pid).children()}

    def outcome(number: int) -> bool:
        if number == 2 * CLIENTS:
            psutil.Process(min(before)).kill()
        try:
            assert ask_once()
        except requests.ConnectionError:
            return False
        return True

    with ThreadPoolExecutor(CLIENTS) as pool:
        answered = list(pool.map(outcome, range(10 * CLIENTS)))
    deadline = time.monotonic() + 60
    workers: set[int] = set()
    while time.monotonic() < deadline and len(workers) < len(before):
        workers = {child.pid for child in psutil.Process(process.pid).children()}
        time.sleep(0.2)
    assert len(workers) == len(before) and workers != before
    return answered.count(False)
