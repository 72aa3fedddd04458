"""The replica and the gateway without Ray's processes: turns, places, deadlines, metrics."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="of the extra [test]")

from clip_common.errors import BusyError, ClipError, RequestError
from clip_common.predictor import Predictor
from clip_common.server import app, scheduling
from clip_common.server.limits import Limits
from clip_common.server.request import PredictRequest, RequestBody
from clip_common.server.settings import Settings
from clip_common.zero_shot import explain as explaining
from clip_common.zero_shot.explain import explain
from clip_common.zero_shot.thresholds import Thresholds
from tests.support.paths import ROOT
from tests.support.waiting import until

DOG = base64.b64encode((ROOT / "examples" / "dog.png").read_bytes()).decode()


def work(**body: Any) -> PredictRequest:
    return RequestBody.parse(body).work(Limits())


SMALL = work(images=[DOG], labels=["a dog", "a cat"])
WHY = work(images=[DOG], labels=["a dog", "a cat"], explain=1)


def with_many(kind: str, words: str) -> PredictRequest:
    """A request with many labels or texts that nothing has seen before."""
    if kind == "labels":
        return work(images=[DOG], labels=[f"{words} {i}" for i in range(600)])
    return work(texts=[f"{words} {i}" for i in range(900)])


def hooked_images(replica: app.Replica, before: Callable[[int], None]) -> list[int]:
    """The sizes of the runs through the image tower; `before` is called at each."""
    sizes: list[int] = []
    encode = replica._predictor.encode_image

    def encode_image(pixels: np.ndarray, use_gpu: bool = False) -> np.ndarray:
        sizes.append(len(pixels))
        before(len(pixels))
        return encode(pixels, use_gpu)

    replica._predictor.encode_image = encode_image  # type: ignore[method-assign]
    return sizes


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
    return app.Replica("clip_mini", None, Settings.model_validate({}))


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
    with pytest.raises(RequestError, match="are both thresholds for clip_mini: give one"):
        app.Replica("clip_mini", None, second)


@pytest.mark.parametrize("many", ["labels", "texts"])
def test_others_are_served_while_one_has_many_texts(
    replica: app.Replica, monkeypatch: pytest.MonkeyPatch, many: str
) -> None:
    monkeypatch.setattr(scheduling, "TURN", 0.0)  # the smallest parts, however fast this machine is
    begun, queued = threading.Event(), threading.Event()
    batch = replica._batches._work

    async def noted(jobs: Any) -> Any:
        queued.set()
        return await batch(jobs)

    def before(texts: Sequence[str]) -> None:
        if len(texts) > 2:
            if begun.is_set():  # its second part: the other request is behind it by now
                assert queued.wait(60)
            begun.set()

    monkeypatch.setattr(replica._batches, "_work", noted)
    sizes = hooked(replica, before)
    answered: list[str] = []

    async def ask(name: str, request: PredictRequest) -> Any:
        result = await replica.answer(request, time.time() + 600)
        answered.append(name)
        return result

    async def run() -> tuple[Any, Any]:
        heavy = asyncio.create_task(ask("heavy", with_many(many, "served")))
        await until(begun.is_set, heavy)
        return await asyncio.gather(ask("small", SMALL), heavy)

    small, heavy = asyncio.run(run())
    assert answered == ["small", "heavy"]
    assert small[0][0]["label"] == "a dog"
    assert len(sizes) > 3
    assert len(heavy["texts"]) == 900 if many == "texts" else len(heavy[0]) == 5


@pytest.mark.parametrize("many", ["labels", "texts"])
def test_a_deadline_ends_the_work_on_many_texts(
    replica: app.Replica, monkeypatch: pytest.MonkeyPatch, many: str
) -> None:
    monkeypatch.setattr(scheduling, "TURN", 0.0)  # the smallest parts, however fast this machine is
    now = [1000.0]

    def before(_: Sequence[str]) -> None:
        now[0] += 10

    sizes = hooked(replica, before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.time, "time", lambda: now[0])
        result = asyncio.run(replica.answer(with_many(many, "late"), 1025.0))
    assert isinstance(result, BusyError)
    assert len(sizes) == 3


def test_others_are_served_beside_an_explanation(
    replica: app.Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two explanations one is made at a time; a small request comes between the parts of the first."""
    monkeypatch.setattr(scheduling, "TURN", 0.0)
    monkeypatch.setattr(explaining, "COPIES", 8)
    begun, answered_small = threading.Event(), threading.Event()
    answered: list[str] = []

    def before(copies: int) -> None:
        if copies > 1:
            if begun.is_set():  # the second part: the small request has had its turn
                assert answered_small.wait(60)
                return
            begun.set()
            end = time.monotonic() + 60
            while replica._model._work_queue.empty():  # the small request does not wait for its turn yet
                assert time.monotonic() < end
                time.sleep(0.01)

    sizes = hooked_images(replica, before)

    async def ask(name: str, request: PredictRequest) -> Any:
        result = await replica.answer(request, time.time() + 600)
        answered.append(name)
        return result

    async def run() -> list[Any]:
        first = asyncio.create_task(ask("first", WHY))
        await until(begun.is_set, first)
        second = asyncio.create_task(ask("second", WHY))
        small = await ask("small", SMALL)
        answered_small.set()
        return [small, await first, await second]

    small, first, second = asyncio.run(run())
    assert answered == ["small", "first", "second"]
    assert sizes == [1, 2, 1, 2, 2, 2, 1, 2, 2, 2, 2]
    assert first == second and "heat" not in small[0][0]
    (expected,) = explain(replica._predictor, base64.b64decode(DOG), ["a dog", "a cat"]).values()
    assert np.abs(np.array(first[0][0]["heat"]) - expected).max() < 1e-5


def explained_late(replica: app.Replica, monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> Any:
    """What an explanation gets within 100 s where parts take so long, and all others as long as the last."""
    now = [1000.0]

    def before(copies: int) -> None:
        if copies > 1:
            now[0] += seconds.pop(0) if len(seconds) > 1 else seconds[0]

    sizes = hooked_images(replica, before)
    with monkeypatch.context() as patch:
        patch.setattr(scheduling, "TURN", 0.0)
        patch.setattr(app.time, "time", lambda: now[0])
        patch.setattr(app.time, "perf_counter", lambda: now[0])
        return asyncio.run(replica.answer(WHY, 1100.0)), sizes[1:]


def test_an_explanation_that_cannot_be_made_in_time_ends_soon(
    replica: app.Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, sizes = explained_late(replica, monkeypatch, [2.0])
    assert isinstance(result, BusyError) and "heat maps take about 256 s here" in str(result)
    assert sizes == [2, 2]  # of 256


def test_one_slow_part_does_not_end_an_explanation(
    replica: app.Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "COPIES", 8)
    result, sizes = explained_late(replica, monkeypatch, [30.0, 0.1])
    assert "heat" in result[0][0] and sum(sizes) == 8


def test_a_deadline_ends_an_explanation(replica: app.Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    result, sizes = explained_late(replica, monkeypatch, [0.1, 0.1, 0.1, 200.0, 0.1])
    assert isinstance(result, BusyError) and "the deadline" in str(result)
    assert len(sizes) == 4


def test_an_explanation_that_nobody_waits_for_ends(
    replica: app.Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "TURN", 0.0)
    begun, left = threading.Event(), threading.Event()

    def before(copies: int) -> None:
        if copies > 1:
            begun.set()
            assert left.wait(60)

    sizes = hooked_images(replica, before)

    async def run() -> Any:
        task = asyncio.create_task(replica.answer(WHY, time.time() + 600))
        await until(begun.is_set, task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left.set()
        return await replica.answer(SMALL, time.time() + 600)

    assert asyncio.run(run())[0][0]["label"] == "a dog"
    replica._long.shutdown()  # waits for what is under way
    assert sizes in ([1, 2, 1], [1, 2, 1, 2])  # a part may have begun before


def test_a_faulty_explanation_gets_its_error(replica: app.Replica) -> None:
    wrong = work(images=["aGk="], labels=["a dog", "a cat"], explain=1)
    result = asyncio.run(replica.answer(wrong, time.time() + 600))
    assert isinstance(result, ClipError) and "not an image" in str(result)


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

        def remote(self, request: PredictRequest, _deadline: float) -> asyncio.Task[str]:
            asked.append(request.kind)
            return asyncio.create_task(self._answer(request.kind))

        async def _answer(self, kind: str) -> str:
            if kind != "small":
                await asyncio.sleep(60)
            return "answered"

    async def run() -> list[Any]:
        gateway = app.Gateway(Settings.model_validate({}), clip_mini=Handle())
        large = [with_many("labels", "room")] * 30 + [work(images=[DOG] * 20, labels=["a", "b"])] * 30
        large += [WHY] * 30
        tasks = [asyncio.create_task(gateway.ask("clip_mini", request)) for request in large]
        await until(lambda: sum(task.done() for task in tasks) >= 66)  # those that are refused
        assert gateway.asking == 24
        assert await gateway.ask("clip_mini", SMALL) == "answered"
        for task in tasks:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    refused = [result for result in asyncio.run(run()) if isinstance(result, BusyError)]
    assert len(refused) == 66
    assert "4 requests with heat maps to make are already waiting for clip_mini" in map(str, refused)
    counts = {kind: asked.count(kind) for kind in ("texts", "images", "explain", "small")}
    assert counts == {"texts": 4, "images": 16, "explain": 4, "small": 1}


def test_the_wait_for_a_turn_of_other_work_is_not_taken_for_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request alone beside an explanation waits for a part of it; a hundred wait no longer for that."""
    for name in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(app, name, Quiet)
    now = [0.0]
    monkeypatch.setattr(app.time, "perf_counter", lambda: now[0])

    class Handle:
        @property
        def answer(self) -> Handle:
            return self

        def remote(self, request: PredictRequest, _deadline: float) -> asyncio.Task[str]:
            return asyncio.create_task(self._answer(request))

        async def _answer(self, request: PredictRequest) -> str:
            if request.explain:
                await asyncio.sleep(60)
            now[0] += 0.6
            return "answered"

    async def run() -> None:
        gateway = app.Gateway(Settings.model_validate({}), clip_mini=Handle())
        load = gateway._load["clip_mini"]["small"]
        why = asyncio.create_task(gateway.ask("clip_mini", WHY))
        await until(lambda: gateway.asking, why)
        await gateway.ask("clip_mini", SMALL)
        load.in_flight = 99
        assert load.expected() == pytest.approx(100 * 0.1)
        load.in_flight = 0
        why.cancel()
        await asyncio.gather(why, return_exceptions=True)
        for _ in range(2):
            await gateway.ask("clip_mini", SMALL)
        load.in_flight = 99
        assert load.expected() == pytest.approx(100 * 0.6)

    asyncio.run(run())


def test_a_replica_is_told_that_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(app, name, Quiet)

    class Response:
        """Like Ray's: where whoever awaits it is cancelled, it is not."""

        told = False

        def cancel(self) -> None:
            Response.told = True

        def __await__(self) -> Any:
            yield from asyncio.sleep(60).__await__()

    class Handle:
        @property
        def answer(self) -> Handle:
            return self

        def remote(self, _request: PredictRequest, _deadline: float) -> Response:
            return Response()

    async def run() -> None:
        gateway = app.Gateway(Settings.model_validate({}), clip_mini=Handle())
        task = asyncio.create_task(gateway.ask("clip_mini", WHY))
        await until(lambda: gateway.asking, task)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert Response.told and not gateway.asking

    asyncio.run(run())


def test_a_controller_that_never_answers_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each probe of `/ready` left a thread there, for which the process waited at its end, for ever."""
    for name in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(app, name, Quiet)
    go_on = threading.Event()
    asked: list[threading.Thread] = []

    def status() -> Any:
        asked.append(threading.current_thread())
        assert go_on.wait(60)
        deployments = {"clip_mini": SimpleNamespace(replica_states={"RUNNING": 1})}
        return SimpleNamespace(applications={"clip": SimpleNamespace(deployments=deployments)})

    monkeypatch.setattr(app.serve, "status", status)
    monkeypatch.setattr(app, "_STATUS_SECONDS", 0.05)

    async def run() -> None:
        gateway = app.Gateway(Settings.model_validate({"modules": {"clip_mini": None}}))
        for _ in range(3):
            assert await gateway.ready() == "Ray Serve's controller does not answer"
        assert len(asked) == 1 and asked[0].daemon
        monkeypatch.setattr(app, "_STATUS_SECONDS", 60)
        go_on.set()
        assert await gateway.ready() is None

    asyncio.run(run())


def test_a_server_may_make_no_heat_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(app, name, Quiet)
    without: Any = {}
    gateway = app.Gateway(Settings.model_validate({"explanations": 0}), clip_mini=without)
    assert not gateway.explains and app.Gateway(Settings.model_validate({}), clip_mini=without).explains
    with pytest.raises(RequestError, match="this server makes no heat maps"):
        asyncio.run(gateway.ask("clip_mini", WHY))


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
        threading.Thread(target=node.serve_forever, args=(0.02,), daemon=True).start()
        place = {"NodeManagerAddress": "127.0.0.1", "MetricsExportPort": node.server_port}
        assert app._metrics_of(place) == "clip_requests_total 1\n"
        node.shutdown()
