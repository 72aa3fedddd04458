"""The Ray Serve app, really started: answers under concurrency, a killed replica, SIGTERM under load."""

from __future__ import annotations

import base64
import importlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

pytest.importorskip("ray", reason="of the extra [test]")
import requests
import yaml
from ray.serve.schema import ServeDeploySchema

from clip_common.cli.main import main
from clip_common.config import pretrained
from clip_common.predictor import Predictor
from clip_common.server import app
from clip_common.server.answering import answer
from clip_common.server.limits import Limits
from clip_common.server.request import RequestBody
from clip_common.server.scheduling import LoadEstimator
from clip_common.server.timeouts import HEADER_SECONDS
from clip_common.zero_shot.explain import explain
from tests.support.answers import assert_same
from tests.support.paths import ROOT
from tests.support.served_app import Server

CLIENTS = 16
IMAGES = sorted((ROOT / "examples").glob("*.png"))
WORDS = ["a dog", "a cat", "a tree", "a house", "a clock", "a guitar", "a car", "an apple"]


def body(number: int) -> dict[str, Any]:
    """A request of its own: images and labels differ, and tasks are mixed."""
    image = base64.b64encode(IMAGES[number % len(IMAGES)].read_bytes()).decode()
    words = WORDS[number % 5 : number % 5 + 3]
    if number % 3 == 2:
        return {"images": [image], "texts": [*words, f"number {number}"]}
    scored = {"scores": "cosine", "thresholds": [-1, -1, 1]} if number % 3 == 1 else {}
    return {"images": [image], "labels": words, "top_k": 3, **scored}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("serve") / "log.txt")
    yield started
    if started.process.poll() is None:
        started.stop()


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(pretrained("clip_mini"))


def test_every_answer_is_the_single_request_answer(server: Server, predictor: Predictor) -> None:
    bodies = [body(number) for number in range(6 * CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        replies = list(pool.map(server.ask, bodies))
    for content, reply in zip(bodies, replies, strict=True):
        assert reply.status_code == 200, reply.text
        (expected,) = answer(predictor, [RequestBody.parse(content).work(Limits())])
        assert_same(reply.json()["results"], expected)


def test_an_explanation_beside_other_requests_and_after_a_client_that_left(
    server: Server, predictor: Predictor
) -> None:
    why = body(0) | {"explain": 2}
    content = json.dumps(why).encode()
    head = b"POST /predict/clip_mini HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as left:
        left.sendall(head % len(content) + content)
    bodies = [why, *(body(number) for number in range(4))]
    with ThreadPoolExecutor(len(bodies)) as pool:
        replies = list(pool.map(server.ask, bodies))
    assert [reply.status_code for reply in replies] == [200] * len(bodies)
    (answer,) = replies[0].json()["results"]
    image = base64.b64decode(why["images"][0])
    expected = explain(predictor, image, why["labels"], top_k=2)
    assert [item["label"] for item in answer[:2]] == list(expected) and len(answer) == 3
    for item in answer[:2]:
        assert np.abs(np.array(item["heat"]) - expected[item["label"]]).max() < 1e-5


def test_a_bad_request_beside_good_ones(server: Server) -> None:
    bodies = [body(0), {"images": ["aGk="], "labels": ["a"]}, body(1), {"texts": ["word " * 100]}, body(2)]
    with ThreadPoolExecutor(len(bodies)) as pool:
        statuses = [reply.status_code for reply in pool.map(server.ask, bodies)]
    assert statuses == [200, 422, 200, 422, 200]


def test_pages_and_metrics(server: Server) -> None:
    server.ask(body(0))
    page = f"http://127.0.0.1:{server.port}/gradio/clip_mini"
    assert f"\nweb page of clip_mini: {page}\n" in server.log.read_text("utf-8")
    assert requests.get(page, timeout=30).status_code == 200
    for path in ("/health", "/docs", "/openapi.json", "/gradio/clip_mini/"):
        assert server.get(path) == 200, path
    deadline = time.monotonic() + 60  # Ray exports its metrics every ten seconds
    wanted = {"clip_requests_total", "clip_request_seconds_bucket", "clip_batch_requests_bucket"}
    while time.monotonic() < deadline and wanted:
        text = requests.get(f"http://127.0.0.1:{server.port}/metrics", timeout=30).text
        wanted = {name for name in wanted if f"\n{name}{{" not in text}
        time.sleep(1)
    assert not wanted


def test_it_listens_on_this_machine_only(server: Server) -> None:
    family = [
        psutil.Process(server.process.pid),
        *psutil.Process(server.process.pid).children(recursive=True),
    ]
    listening = {c.laddr for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert any(address.port == server.port for address in listening)
    assert {address.ip for address in listening if address.port == server.port} == {"127.0.0.1"}


def test_slow_clients_keep_nobody_out(server: Server) -> None:
    """They send half of their headers, half of a body, or nothing, and wait."""
    beginnings = (
        b"",
        b"POST /predict/clip_mini HTTP/1.1\r\nHost: x\r\nContent-",
        b"POST /predict/clip_mini HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
    )
    slow: dict[bytes, list[socket.socket]] = {beginning: [] for beginning in beginnings}
    for number in range(600):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        connection.sendall(beginnings[number % 3])
        slow[beginnings[number % 3]].append(connection)
    start = time.monotonic()
    assert server.ask(body(0)).status_code == 200
    assert time.monotonic() - start < HEADER_SECONDS
    for beginning, connections in slow.items():
        for connection in connections:
            said = connection.recv(1000)
            assert said == b"" or (beginning.endswith(b"{") and b" 408 " in said.partition(b"\n")[0])
            connection.close()
    assert server.ask(body(1)).status_code == 200


def test_a_killed_replica_comes_back_by_itself(server: Server) -> None:
    server.replica().kill()
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        reply = server.ask(body(0))
        if reply.status_code == 200:
            break
        assert reply.status_code in (500, 503), reply.text
        time.sleep(0.5)
    assert reply.status_code == 200
    assert server.get("/ready") == 200


def test_sigterm_under_load_answers_what_was_accepted(server: Server) -> None:
    """The last test of this server: it ends."""
    url = f"http://127.0.0.1:{server.port}/predict/clip_mini"

    statuses: list[int] = []

    def client(number: int) -> None:
        """Statuses until the server is gone. Only who was told so (503) may find it gone in mid-request."""
        last = 0
        with requests.Session() as session:
            while True:
                try:
                    last = session.post(url, json=body(number), timeout=60).status_code
                except requests.ConnectionError as error:
                    assert "refused" in str(error) or last == 503, error
                    return
                statuses.append(last)
                number += 1

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, number) for number in range(8)]
        deadline = time.monotonic() + 60
        while len(statuses) < 80 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert server.stop() == 0
        for done in clients:
            done.result()
    assert set(statuses) == {200, 503}
    assert statuses.count(200) > 8


def test_sigterm_ends_a_server_whose_page_is_open_and_whose_answer_is_not_read(tmp_path: Path) -> None:
    """Neither a browser's tab nor a client that does not read keeps it alive."""
    own = Server(tmp_path / "log.txt", "--deadline", "3")
    tab = socket.create_connection(("127.0.0.1", own.port), timeout=60)
    tab.sendall(b"GET /gradio/clip_mini/gradio_api/heartbeat/abc HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in tab.recv(100)
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", own.port))
    content = b'{"texts": [' + b",".join(b'"text %d"' % i for i in range(900)) + b"]}"
    head = b"POST /predict/clip_mini HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    reader.sendall(head % len(content) + content)
    assert reader.recv(15) == b"HTTP/1.1 200 OK"
    assert own.stop() == 0
    assert "Traceback" not in own.log.read_text()
    tab.close()
    reader.close()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    own = Server(tmp_path / "log.txt")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(own.ask, {"texts": [f"some text {i}" for i in range(900)]})
        family = psutil.Process(own.process.pid).children(recursive=True)
        own.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 60
        while "stopping" not in own.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        own.process.send_signal(signal.SIGTERM)
        assert own.process.wait(20) == 128 + signal.SIGTERM
        assert not psutil.wait_procs(family, timeout=60)[1]
        asked.exception()


def test_settings_are_checked_before_anything_starts() -> None:
    for options, words in (
        (["clip_huge"], "no module is named 'clip_huge'"),
        (["clip_mini", "--queue", "0"], "--queue is 0: Input should be greater than or equal to 1"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "clip_common", "serve", *options],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_the_kubernetes_example_is_a_configuration_of_this_app() -> None:
    """Its schema, its import path and its arguments; it was not run on a cluster of Kubernetes."""
    manifest = yaml.safe_load((ROOT / "deploy" / "rayservice.yaml").read_text())
    config = ServeDeploySchema.parse_obj(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    (application,) = config.applications
    module, _, function = application.import_path.partition(":")
    built = getattr(importlib.import_module(module), function)(application.args)
    assert built._bound_deployment.name == "Gateway"


def test_a_taken_port_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "clip_mini", "--port", str(port)]) == 1
    assert f"--port {port}: cannot listen there" in capsys.readouterr().err


def test_the_pace_is_latency_over_those_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(app.time, "perf_counter", lambda: now[0])
    load = LoadEstimator()
    assert load.expected() == 0  # nothing is known yet
    with load.in_flight_request(), load.in_flight_request():
        assert load.expected() == 0
        now[0] += 4
    assert load.in_flight == 0
    assert load.expected() == 0  # however long the last ones took, one is let in
    with pytest.raises(KeyError), load.in_flight_request():
        now[0] += 1000
        raise KeyError
    with load.in_flight_request():
        assert load.expected() == 2 * 3  # 4 s alone and 4 s of two: 4 and 2 s each
