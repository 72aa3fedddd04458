"""`clip-hub serve` before it starts anything: what cannot work is said in one line, at once."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from clip_common.cli import serve
from clip_common.cli.main import main
from clip_common.config import MINI
from clip_common.errors import RequestError
from clip_common.zero_shot.thresholds import Thresholds
from tests.support.checkpoints import Checkpoints


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "require_package", lambda *_: None)
    monkeypatch.setitem(sys.modules, "clip_common.server.run", None)  # whoever imports it fails the test


def test_a_second_server_on_a_port_is_refused_before_the_first_answers() -> None:
    first = serve._listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    try:
        with pytest.raises(RequestError, match=f"--port {port}: cannot listen there"):
            serve._listen("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass  # who comes early waits for the answer
    finally:
        first.close()


def test_a_port_is_free_again_after_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    first = serve._listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as client:
        accepted, _ = first.accept()
        accepted.close()  # first: its side of the connection lingers
        client.recv(1)
    first.close()
    serve._listen("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no weights file at"),
        (b"not weights", "unknown format"),
        ("another model", "do not fit mini"),
    ],
)
def test_bad_weights_are_said_before_anything_starts(
    content: bytes | str | None,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    checkpoints: Checkpoints,
) -> None:
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path = checkpoints(replace(MINI, name="other", embed_dim=128))
    assert main(["serve", f"clip_mini={path}", "--port", "0"]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert words in said[0] and path.name in said[0]


def test_an_engine_that_cannot_compute_so_is_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--engine", "onnxruntime", "--precision", "bfloat16"]
    assert main(["serve", "clip_mini", "--port", "0", *options]) == 1
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert "bfloat16" in said


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("clip_mini", "thresholds are for clip_mini with the weights 000000000000, and these are"),
        ("clip_rn50", "these thresholds are for clip_rn50, which is not served"),
        (None, "nowhere.json: cannot be read"),
    ],
)
def test_thresholds_of_another_model_are_said_before_anything_starts(
    module: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("thresholds.json" if module else "nowhere.json")
    if module:
        Thresholds(module, "0" * 64, ("a {}",), "cosine", {"a dog": 0.2}).write(path)
    assert main(["serve", "clip_mini", "--port", "0", "--thresholds", str(path)]) == 1
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert words in said


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (["--batch_wait", "inf"], "--batch_wait is inf: "),
        (["--batch_wait", "1e30"], "batch_wait, 1e+30: no request would be answered in time"),
        (["--batch_wait", "30"], "--deadline is 30.0: "),
        (["--batch_wait", "1", "--deadline", "0.5"], "--deadline is 0.5: "),
        (["--deadline", "inf"], "--deadline is inf: "),
    ],
)
def test_no_request_waits_longer_than_its_deadline(
    given: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "clip_mini", "--port", "0", *given]) == 1
    assert fault in capsys.readouterr().err
