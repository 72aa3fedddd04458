"""The replica and the gateway without Ray's processes: turns, places, deadlines, metrics."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="of the extra [test]")

from clip_common.errors import BusyError, RequestError
from clip_common.predictor import Predictor
from clip_common.server import app
from clip_common.server.limits import Limits
from clip_common.server.request import PredictRequest, RequestBody
from clip_common.server.settings import Settings
from clip_common.zero_shot.thresholds import Thresholds
from tests.support.paths import ROOT

DOG = base64.b64encode((ROOT / "examples" / "dog.png").read_bytes()).decode()


def work(**body: Any) -> PredictRequest:
    return RequestBody.parse(body).work(Limits())


SMALL = work(images=[DOG], labels=["a dog", "a cat"])


def with_many(kind: str, words: str) -> PredictRequest:
    """A request with many labels or texts that nothing has seen before."""
    if kind == "labels":
        return work(images=[DOG], labels=[f"{words} {i}" for i in range(600)])
    return work(texts=[f"{words} {i}" for i in range(900)])


class Quiet:
    """A metric that counts nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def set_default_tags(self, _: Any) -> None:
        pass

    observe = set = set_default_tags


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> app.Replica:
    monkeypatch.setattr(app, "Histogram", Quiet)
    monkeypatch.setattr(app.Replica, "together", together)
    return app.Replica("clip_mini", None, Settings.model_validate({}))


async def together(self: app.Replica, given: Any) -> Any:
    """A batch of one, in place of Ray Serve's."""
    (result,) = await app.Replica._batch(self, [given])
    return result


together.set_max_batch_size = together.set_batch_wait_timeout_s = lambda _: None  # type: ignore[attr-defined]


def hooked(replica: app.Replica, before: Callable[[Sequence[str]], None]) -> list[int]:
    """The sizes of the runs through the text tower; `before` is called at each."""
    sizes: list[int] = []
    encode = replica._predictor.text_features

    def text_features(texts: Sequence[str], *options: Any, **named: Any) -> np.ndarray:
        sizes.append(len(texts))
        before(texts)
        return encode(texts, *options, **named)

    replica._predictor.text_features = text_features  # type: ignore[method-assign]
    return sizes


def test_a_server_with_thresholds_answers_with_their_labels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    predictor = Predictor("clip_mini")
    values = {"a dog": -1.0, "a cat": 1.0}
    fitted = Thresholds("clip_mini", predictor.weights_sha256, ("the {}",), "cosine", values)
    fitted.write(tmp_path / "t.json")
    monkeypatch.setattr(app, "Histogram", Quiet)
    monkeypatch.setattr(app.Replica, "together", together)
    settings = Settings.model_validate({"thresholds": [str(tmp_path / "t.json")]})
    made = app.Replica("clip_mini", None, settings)

    def ask(**body: Any) -> Any:
        return asyncio.run(made.answer(work(images=[DOG], **body), time.time() + 600))

    assert ask() == predictor.classify(images=[base64.b64decode(DOG)], thresholds=fitted)
    assert [item["label"] for item in ask()[0]] == ["a dog"]
    assert {item["label"] for item in ask(labels=["a cat", "a car"])[0]} == {"a cat", "a car"}
    assert len(ask(scores="softmax")[0]) == 5
    assert ask(labels=["a cat"], scores="cosine", thresholds=1) == [[]]
    assert len(ask(task="embed")["images"]) == 1
    second = Settings.model_validate({"thresholds": [str(tmp_path / "t.json")] * 2})
    with pytest.raises(RequestError, match="are both thresholds of clip_mini: give one"):
        app.Replica("clip_mini", None, second)


@pytest.mark.parametrize("many", ["labels", "texts"])
def test_others_are_served_while_one_has_many_texts(
    replica: app.Replica, monkeypatch: pytest.MonkeyPatch, many: str
) -> None:
    monkeypatch.setattr(app, "_TURN", 0.0)  # the smallest parts, however fast this machine is
    begun, queued = threading.Event(), threading.Event()
    batch = app.Replica._batch

    async def noted(self: app.Replica, jobs: Any) -> Any:
        queued.set()
        return await batch(self, jobs)

    def before(texts: Sequence[str]) -> None:
        if len(texts) > 2:
            if begun.is_set():  # its second part: the other request is behind it by now
                assert queued.wait(60)
            begun.set()

    monkeypatch.setattr(app.Replica, "_batch", noted)
    sizes = hooked(replica, before)
    answered: list[str] = []

    async def ask(name: str, request: PredictRequest) -> Any:
        result = await replica.answer(request, time.time() + 600)
        answered.append(name)
        return result

    async def run() -> tuple[Any, Any]:
        heavy = asyncio.create_task(ask("heavy", with_many(many, "served")))
        while not begun.is_set():
            assert not heavy.done(), heavy.result()
            await asyncio.sleep(0.01)
        return await asyncio.gather(ask("small", SMALL), heavy)

    small, heavy = asyncio.run(run())
    assert answered == ["small", "heavy"]
    assert small[0][0]["label"] == "a dog"
    assert len(sizes) > 3
    assert len(heavy["texts"]) == 900 if many == "texts" else len(heavy[0]) == 5


@pytest.mark.parametrize("many", ["labels", "texts"])
def test_a_deadline_ends_the_work_on_many_texts(replica: app.Replica, many: str) -> None:
    now = [1000.0]

    def before(_: Sequence[str]) -> None:
        now[0] += 10

    sizes = hooked(replica, before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.time, "time", lambda: now[0])
        result = asyncio.run(replica.answer(with_many(many, "late"), 1025.0))
    assert isinstance(result, BusyError)
    assert len(sizes) == 3


def test_a_deadline_ends_the_decoding_of_images(
    replica: app.Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, decoded = [1000.0], []
    prepare = replica._predictor.prepare

    def slow(image: Any) -> Any:
        decoded.append(image)
        now[0] += 10
        return prepare(image)

    monkeypatch.setattr(replica._predictor, "prepare", slow)
    monkeypatch.setattr(app.threads, "count", lambda: 1)
    monkeypatch.setattr(app.time, "time", lambda: now[0])
    result = asyncio.run(replica.answer(work(images=[DOG] * 40, labels=["a", "b"]), 1025.0))
    assert isinstance(result, BusyError)
    assert len(decoded) == 3


def test_requests_with_much_to_do_leave_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of them are sent, few are under way, and a small one is let in."""
    for name in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(app, name, Quiet)
    asked: list[str] = []

    class Handle:
        """A replica's, which answers small requests only."""

        @property
        def answer(self) -> Handle:
            return self

        async def remote(self, request: PredictRequest, _deadline: float) -> Any:
            asked.append(request.kind)
            if request.kind != "small":
                await asyncio.sleep(60)
            return "answered"

    async def run() -> list[Any]:
        gateway = app.Gateway(Settings.model_validate({}), clip_mini=Handle())
        large = [with_many("labels", "room")] * 30 + [work(images=[DOG] * 20, labels=["a", "b"])] * 30
        tasks = [asyncio.create_task(gateway.ask("clip_mini", request)) for request in large]
        await asyncio.sleep(0.1)
        assert gateway.asking == 20
        assert await gateway.ask("clip_mini", SMALL) == "answered"
        for task in tasks:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    refused = [result for result in asyncio.run(run()) if isinstance(result, BusyError)]
    assert len(refused) == 40
    assert (asked.count("texts"), asked.count("images"), asked.count("small")) == (4, 16, 1)


def test_places_are_given_in_order_and_come_back() -> None:
    async def run() -> list[str]:
        places, order = app._Places(10), []

        async def take(name: str, wanted: int, release: asyncio.Event) -> None:
            async with places.taken(wanted):
                order.append(name)
                await release.wait()

        first, later = asyncio.Event(), asyncio.Event()
        later.set()
        tasks = [asyncio.create_task(take("eight", 8, first))]
        await asyncio.sleep(0)
        tasks += [
            asyncio.create_task(take("hundred", 100, later)),
            asyncio.create_task(take("one", 1, later)),
        ]
        for _ in range(20):
            await asyncio.sleep(0)
        assert order == ["eight"]
        first.set()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(run()) == ["eight", "hundred", "one"]


def test_metrics_of_a_node_do_not_go_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Node(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ray_clip_requests_total 1\n")

        def log_message(self, *_: Any) -> None:
            pass

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with ThreadingHTTPServer(("127.0.0.1", 0), Node) as node:
        threading.Thread(target=node.serve_forever, daemon=True).start()
        place = {"NodeManagerAddress": "127.0.0.1", "MetricsExportPort": node.server_port}
        assert app._metrics_of(place) == "clip_requests_total 1\n"
        node.shutdown()
