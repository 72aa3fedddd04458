"""The server's HTTP door without Ray: statuses, refusals, limits, the API key, the OpenAPI document."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import threading
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from clip_common.errors import BusyError, RequestError
from clip_common.server import admission as admission_module
from clip_common.server.admission import Admission, AdmissionMiddleware, api_key_from_environment
from clip_common.server.http import create_api
from clip_common.server.request import PredictRequest, RequestBody
from clip_common.zero_shot import explain as explaining
from clip_common.zero_shot.explain import explain
from tests.support.direct_service import MODULE, URL, Direct
from tests.support.paths import ROOT
from tests.support.waiting import until

DOG = base64.b64encode((ROOT / "examples" / "dog.png").read_bytes()).decode()


@pytest.fixture
def admission(monkeypatch: pytest.MonkeyPatch) -> Admission:
    monkeypatch.setattr(admission_module, "_LINGER", 0.2)
    return Admission(None, body_bytes=200_000, bytes_in_flight=500_000, body_seconds=0.5)


def test_classify_and_embed(client: TestClient, service: Direct) -> None:
    reply = client.post(URL, json={"images": [DOG], "labels": ["a dog", "a tree"], "top_k": 1})
    assert reply.status_code == 200
    body = reply.json()
    assert (body["status"], body["msg"]) == ("000", "")
    assert body["results"][0][0]["label"] == "a dog"
    reply = client.post(URL, json={"texts": ["a dog", "a tree"]})
    assert [len(vector) for vector in reply.json()["results"]["texts"]] == [512, 512]
    assert service.seen == [(MODULE, 200), (MODULE, 200)]


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "the body is not JSON"),
        (b"{", 400, "the body is not JSON"),
        (b"\xff\xfe", 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "recursion limit"),
        (b'{"texts": ["\\ud800"]}', 400, "the body is not JSON"),
        (b"[1]", 422, "should be an object"),
        (b"null", 422, "should be an object"),
        (b"{}", 422, "nothing to classify"),
        (b'{"paths": ["/etc/passwd"]}', 422, "unknown field 'paths'"),
        (b'{"images": ["/etc/passwd"]}', 422, "images[0] is not base64"),
        (b'{"images": ["http://127.0.0.1/x.png"]}', 422, "images[0] is not base64"),
        (b'{"images": ["aGk="], "labels": ["a"]}', 422, "images[0]: not an image"),
        (b'{"images": 5}', 422, "field 'images'"),
        (b'{"texts": [1]}', 422, "field 'texts[0]'"),
        (b'{"texts": ["a"], "top_k": 1e400}', 422, "field 'top_k'"),
        (b'{"texts": ["a"], "batch_size": 99999999999999999999999}', 200, ""),
        (b'{"texts": ["' + b"a" * 2000 + b'"]}', 413, "CLIP_HUB_MAX_CHARACTERS"),
        (b'{"texts": [' + b'"a",' * 2000 + b'"a"]}', 413, "CLIP_HUB_MAX_TEXTS"),
        (b'{"texts": ["' + b"word " * 150 + b'"]}', 422, "the limit is 77"),
        (b'{"texts": ["a"], "use_gpu": true}', 422, "use_gpu is set"),
        (b'{"texts": ["a"], "thresholds": 0.2}', 422, "'thresholds' does not go with the task 'embed'"),
        (b'{"texts": ["a"], "scores": "cosine"}', 422, "'scores' does not go with the task 'embed'"),
        (b'{"x": "' + b"a" * 300_000 + b'"}', 413, "the body has more than 200,000 bytes"),
    ],
)
def test_statuses_of_refusals(client: TestClient, content: bytes, status: int, words: str) -> None:
    reply = client.post(URL, content=content)
    assert (reply.status_code, words in reply.json()["msg"]) == (status, True), reply.text[:300]
    assert client.post(URL, json={"texts": ["a dog"]}).status_code == 200


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ('"scores": "dot"', 422, "field 'scores'"),
        ('"thresholds": "thresholds.json"', 422, "field 'thresholds' is a str: expected a number, a list"),
        ('"thresholds": ["thresholds.json", 0.1]', 422, "thresholds[0] is 'thresholds.json'"),
        ('"thresholds": true', 422, "thresholds is True"),
        ('"thresholds": NaN', 422, "thresholds is nan"),
        ('"thresholds": 1e400', 422, "thresholds is inf"),
        ('"thresholds": ' + "9" * 4000, 422, "thresholds is a huge number"),
        ('"thresholds": -0.1', 422, "expected a number from 0 to 1, as softmax"),
        ('"thresholds": [0.1]', 422, "length 1, for 2 labels"),
        ('"thresholds": {"a dog": 0.1}', 422, "none for the label 'a tree'"),
        ('"thresholds": {"format": "x"}', 422, "its format is 'x'"),
        ('"thresholds": [' + "0.1, " * 10_000 + "0.1]", 413, "CLIP_HUB_MAX_LABELS"),
        ('"thresholds": {"' + "x" * 1_001 + '": 0.1}', 413, "CLIP_HUB_MAX_CHARACTERS"),
    ],
)
def test_thresholds_that_cannot_be_used(client: TestClient, fields: str, status: int, words: str) -> None:
    content = f'{{"images": ["{DOG}"], "labels": ["a dog", "a tree"], {fields}}}'
    reply = client.post(URL, content=content.encode())
    assert (reply.status_code, words in reply.json()["msg"]) == (status, True), reply.text[:300]


def test_none_of_these_is_an_empty_list(client: TestClient) -> None:
    body = {"images": [DOG, DOG], "labels": ["a dog", "a tree"], "scores": "cosine", "thresholds": 1}
    assert client.post(URL, json=body).json() == {"status": "000", "msg": "", "results": [[], []]}


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_heat_maps_are_those_of_python(
    client: TestClient, service: Direct, admission: Admission, monkeypatch: pytest.MonkeyPatch, resize: Any
) -> None:
    admission.bytes_in_flight = 50 << 20
    monkeypatch.setattr(explaining, "COPIES", 16)
    preprocess = service.predictor.preprocess
    squashed = replace(preprocess, settings=replace(preprocess.settings, resize=resize))
    monkeypatch.setitem(vars(service.predictor), "preprocess", squashed)
    labels = ["a tree", "a dog", "a cat"]
    body = {"images": [DOG], "labels": labels, "explain": 2}
    reply = client.post(URL, json=body)
    assert reply.status_code == 200, reply.text
    (answer,) = reply.json()["results"]
    expected = explain(service.predictor, base64.b64decode(DOG), labels, top_k=2)
    assert [item["label"] for item in answer[:2]] == list(expected)
    for item in answer[:2]:
        assert np.abs(np.array(item["heat"]) - expected[item["label"]]).max() < 1e-5
        assert item["heat_of"] == ("whole" if resize == "squash" else "centre")
    plain = client.post(URL, json={**body, "explain": None}).json()["results"]
    assert [[{"label": item["label"], "score": item["score"]} for item in answer]] == plain
    assert set(answer[2]) == {"label", "score"}
    nothing = {**body, "scores": "cosine", "thresholds": 1}
    assert client.post(URL, json=nothing).json()["results"] == [[]]


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ('"explain": 0', 422, "field 'explain': Input should be greater than or equal to 1"),
        ('"explain": 11', 422, "field 'explain': Input should be less than or equal to 10"),
        ('"explain": true', 422, "field 'explain': Input should be a valid integer"),
        ('"explain": "a dog"', 422, "field 'explain': Input should be a valid integer"),
        ('"explain": 1, "task": "embed"', 422, "'explain' does not go with the task 'embed'"),
        ('"explain": 1, "texts": ["a"]', 422, "'explain' does not go with the task 'embed'"),
    ],
)
def test_what_cannot_be_explained(client: TestClient, fields: str, status: int, words: str) -> None:
    reply = client.post(URL, content=f'{{"images": ["{DOG}"], {fields}}}'.encode())
    assert (reply.status_code, words in reply.json()["msg"]) == (status, True), reply.text[:300]


def test_heat_maps_of_several_images_are_refused(client: TestClient) -> None:
    reply = client.post(URL, json={"images": [DOG, DOG], "labels": ["a dog"], "explain": 1})
    assert reply.status_code == 422 and "needs exactly one image, and there are 2" in reply.json()["msg"]


def test_an_explanation_whose_client_has_left_is_given_up() -> None:
    """A request that nobody waits for; others are answered whether or not their client is there."""
    ended: list[str] = []

    class Slow(Direct):
        async def ask(self, module: str, work: PredictRequest) -> Any:
            if not work.explain:
                return "answered"
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("explanation")

    api, sent = create_api(Slow()), []

    async def receive(body: list[bytes]) -> dict[str, Any]:
        if body:
            return {"type": "http.request", "body": body.pop(), "more_body": False}
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def call(body: dict[str, Any]) -> None:
        scope = {"type": "http", "method": "POST", "path": URL, "headers": [], "query_string": b""}
        await asyncio.wait_for(api(scope, partial(receive, [json.dumps(body).encode()]), send), 30)

    asyncio.run(call({"images": [DOG], "explain": 1}))
    assert ended == ["explanation"] and sent[0]["status"] == 503
    asyncio.run(call({"images": [DOG]}))
    assert sent[2]["status"] == 200


def test_unknown_routes(client: TestClient) -> None:
    reply = client.post("/predict/clip_vit_l14", json={})
    assert reply.status_code == 404
    assert "there are clip_mini" in reply.json()["msg"]
    assert client.get(URL).status_code == 405
    assert client.get("/../../etc/passwd").status_code == 404


def test_busy_and_broken(client: TestClient, service: Direct) -> None:
    service.fault = BusyError("128 requests wait already")
    reply = client.post(URL, json={"texts": ["a"]})
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert client.get("/ready").status_code == 503
    assert client.get("/health").status_code == 200
    service.fault = RuntimeError("secret of the house")
    reply = client.post(URL, json={"texts": ["a"]})
    assert reply.status_code == 500
    assert "secret" not in reply.text
    service.fault = None
    assert client.get("/ready").json() == {"status": "ok"}


def test_api_key(client: TestClient, admission: Admission) -> None:
    admission.api_key = "s3cret"
    ask = {"texts": ["a dog"]}
    basic = base64.b64encode(b"anybody:s3cret").decode()
    wrong = ("", "Bearer", "Bearer wrong", "Bearer s3cret2", "Basic s3cret", "Basic !!", "Basic " + "QQ==")
    for header in wrong:
        reply = client.post(URL, json=ask, headers={"authorization": header})
        assert reply.status_code == 401, header
        assert reply.headers["www-authenticate"].startswith("Basic")
    for header in ("Bearer s3cret", f"Basic {basic}"):
        assert client.post(URL, json=ask, headers={"authorization": header}).status_code == 200
    assert client.get("/metrics").status_code == 401
    assert client.get("/health").status_code == client.get("/ready").status_code == 200


def test_draining_refuses_what_is_new(client: TestClient, admission: Admission) -> None:
    admission.draining = True
    reply = client.post(URL, json={"texts": ["a"]})
    assert (reply.status_code, reply.headers["connection"]) == (503, "close")
    assert admission.in_flight == 0


def test_bodies_in_flight_are_bounded(client: TestClient, admission: Admission) -> None:
    admission.bytes_held = 400_000
    assert client.post(URL, content=b" " * 150_000).status_code == 503
    assert client.post(URL, json={"texts": ["a"]}).status_code == 200
    assert admission.bytes_held == 400_000


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([{"type": "http.request", "body": b"{", "more_body": True}], 408),  # and then nothing
        ([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}], 400),
        ([{"type": "http.request", "body": b"x" * 90_000, "more_body": True}] * 9, 413),  # no content-length
    ],
)
def test_slow_cut_and_endless_bodies(
    service: Direct, admission: Admission, messages: list[dict[str, Any]], status: int
) -> None:
    guard = AdmissionMiddleware(create_api(service), admission)
    sent: list[Any] = []
    coming = iter(messages)

    async def receive() -> Any:
        message = next(coming, None)
        if message is None:
            await asyncio.sleep(60)
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": URL, "headers": []}
    asyncio.run(guard(scope, receive, send))
    assert sent[0]["status"] == status
    assert json.loads(sent[1]["body"])["status"] == "101"
    assert admission.bytes_held == admission.in_flight == 0


class Asked:
    """What a client of the ASGI app sends and sees, message by message."""

    def __init__(self, path: str, messages: list[dict[str, Any]], **headers: str) -> None:
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.scope = {"type": "http", "method": "POST", "path": path, "headers": pairs, "query_string": b""}
        self.messages, self.received, self.sent = iter(messages), 0, []  # type: ignore[var-annotated]

    async def receive(self) -> Any:
        self.received += 1
        message = next(self.messages, None)
        if message is None:
            await asyncio.sleep(60)
        return message

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def run(self, app: Any) -> None:
        await app(self.scope, self.receive, self.send)


@pytest.mark.parametrize("path", ["/health", "/ready", URL, "/gradio/clip_mini/gradio_api/upload", "/docs"])
def test_without_the_key_no_body_is_read(service: Direct, admission: Admission, path: str) -> None:
    admission.api_key, admission.draining = "s3cret", True
    asked = Asked(path, [{"type": "http.request", "body": b"x" * 90_000, "more_body": True}])
    asyncio.run(asked.run(AdmissionMiddleware(create_api(service), admission)))
    assert asked.received == 0
    assert asked.sent[0]["status"] == (405 if path in ("/health", "/ready") else 401)


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/docs", "/openapi.json"])
def test_head_is_answered_where_get_is(client: TestClient, path: str) -> None:
    assert client.head(path).status_code == client.get(path).status_code == 200


@pytest.mark.parametrize("key", ["s3cret\n", " s3cret\r\n", "s3cret"])
def test_a_key_from_a_file_with_a_line_end(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("CLIP_HUB_API_KEY", key)
    assert api_key_from_environment() == "s3cret"


@pytest.mark.parametrize("key", [b"s3cret\xff", 'clé 狗:"='.encode(), b"a b"])
def test_a_key_of_any_bytes(service: Direct, admission: Admission, key: bytes) -> None:
    admission.api_key = os.fsdecode(key)

    def status(header: bytes) -> int:
        asked = Asked(URL, [{"type": "http.request", "body": b'{"texts": ["a dog"]}'}])
        asked.scope["headers"] = [(b"authorization", header)]
        asyncio.run(asked.run(AdmissionMiddleware(create_api(service), admission)))
        return asked.sent[0]["status"]

    assert status(b"Bearer " + key) == status(b"Basic " + base64.b64encode(b"anybody:" + key)) == 200
    assert status(b"Bearer \xff") == 401


@pytest.mark.parametrize("key", ["s3c\nret", "s3c\x7fret", "s3c\tret"])
def test_a_key_that_no_header_can_carry(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("CLIP_HUB_API_KEY", key)
    with pytest.raises(RequestError, match="CLIP_HUB_API_KEY has a line end or control character inside"):
        api_key_from_environment()


def test_a_blank_key_lets_nobody_in_by_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_HUB_API_KEY", " \n")
    with pytest.raises(RequestError, match="CLIP_HUB_API_KEY is blank"):
        api_key_from_environment()
    monkeypatch.setenv("CLIP_HUB_API_KEY", "")
    assert api_key_from_environment() is None
    monkeypatch.delenv("CLIP_HUB_API_KEY")
    assert api_key_from_environment() is None


PACKED = {"content-encoding": "gzip"}


def test_packed_bodies(client: TestClient, admission: Admission) -> None:
    body = json.dumps({"texts": ["a dog"]}).encode()
    assert client.post(URL, content=gzip.compress(body), headers=PACKED).status_code == 200
    padded = body + b" " * 150_000
    assert client.post(URL, content=gzip.compress(padded), headers=PACKED).status_code == 200
    assert (
        client.post(URL, content=gzip.compress(body), headers={"content-encoding": "GZIP "}).status_code
        == 200
    )
    for content, status, words in (
        (gzip.compress(body) + b"x", 400, "the body goes on after the end of its gzip"),
        (
            gzip.compress(body[:5]) + gzip.compress(body[5:]),
            400,
            "the body goes on after the end of its gzip",
        ),
        (gzip.compress(b" " * 50_000_000), 413, "the body has more than 200,000 bytes"),
        (body, 400, "not gzip"),
        (gzip.compress(padded)[:-9], 400, "no end"),
    ):
        reply = client.post(URL, content=content, headers=PACKED)
        assert (reply.status_code, words in reply.json()["msg"]) == (status, True), reply.text
    reply = client.post(URL, content=body, headers={"content-encoding": "br"})
    assert (reply.status_code, "'br'" in reply.json()["msg"]) == (415, True)
    assert admission.bytes_held == admission.in_flight == 0


def test_what_follows_the_end_of_a_gzip_is_not_kept(service: Direct, admission: Admission) -> None:
    """However much it is, and where its size is not said before."""
    packed = gzip.compress(b'{"texts": ["a dog"]}')
    coming = [packed, b"x" * 1_000, *[b"x" * 90_000] * 5]
    asked = Asked(
        URL,
        [{"type": "http.request", "body": part, "more_body": True} for part in coming],
        content_encoding="gzip",
    )
    asyncio.run(asked.run(AdmissionMiddleware(create_api(service), admission)))
    assert asked.sent[0]["status"] == 400 and b"after the end of its gzip" in asked.sent[1]["body"]
    assert admission.bytes_held == admission.in_flight == 0


@pytest.mark.parametrize(
    ("headers", "draining", "status"),
    [
        ({"content_length": "900000"}, False, 413),
        ({"content_encoding": "br"}, False, 415),
        ({}, True, 503),
    ],
)
def test_the_body_of_a_refused_request_is_read_before_the_connection_ends(
    service: Direct, admission: Admission, headers: dict[str, str], draining: bool, status: int
) -> None:
    """Else a client that is still sending sees a broken connection, and not why."""
    admission.draining = draining
    parts = [{"type": "http.request", "body": b"x" * 90_000, "more_body": i < 9} for i in range(10)]
    asked = Asked(URL, parts, **headers)
    received_before: list[int] = []

    async def send(message: Any) -> None:
        received_before.append(asked.received)
        asked.sent.append(message)

    app = AdmissionMiddleware(create_api(service), admission)
    asyncio.run(app(asked.scope, asked.receive, send))
    assert asked.sent[0]["status"] == status and json.loads(asked.sent[1]["body"])["status"] == "101"
    assert (received_before[1], received_before[-1]) == (0, 10)
    assert [message.get("more_body") for message in asked.sent[1:]] == [True, None]
    assert admission.bytes_held == admission.in_flight == 0


def test_a_large_answer_counts_until_it_is_read(service: Direct, admission: Admission) -> None:
    """It goes out in pieces; where too much is held already, it is refused."""
    held: list[int] = []
    content = b"x" * 400_000

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"400000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    class Slow(Asked):
        async def send(self, message: Any) -> None:
            held.append(admission.bytes_held)
            await super().send(message)

    slow = Slow(URL, [{"type": "http.request", "body": b"{}"}])
    asyncio.run(slow.run(AdmissionMiddleware(app, admission)))
    pieces = [message["body"] for message in slow.sent[1:]]
    assert b"".join(pieces) == content and max(map(len, pieces)) <= 1 << 16
    assert [message["more_body"] for message in slow.sent[1:]] == [True] * (len(pieces) - 1) + [False]
    assert min(held) >= len(content)
    admission.bytes_held = 150_000
    asked = Asked(URL, [{"type": "http.request", "body": b"{}"}])
    asyncio.run(asked.run(AdmissionMiddleware(app, admission)))
    assert asked.sent[0]["status"] == 503 and len(asked.sent) == 2
    assert (admission.bytes_held, admission.in_flight) == (150_000, 0)


def test_a_stream_without_an_end_is_not_waited_for_and_is_ended(admission: Admission) -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ALIVE", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def drained() -> Asked:
        asked = Asked("/gradio/clip_mini/heartbeat", [{"type": "http.request", "body": b""}])
        task = asyncio.create_task(asked.run(AdmissionMiddleware(app, admission)))
        await until(lambda: len(asked.sent) >= 2, task)
        assert admission.in_flight == 0
        admission.draining = True
        admission.end_the_endless()
        await until(task.done)  # `wait_for` would cancel it, which ends it too
        await task
        return asked

    assert asyncio.run(drained()).sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert admission.in_flight == 0 and not admission.endless


def test_a_body_that_has_not_come_is_not_waited_for_when_the_server_stops(
    service: Direct, admission: Admission
) -> None:
    async def drained() -> Asked:
        asked = Asked(URL, [{"type": "http.request", "body": b"{", "more_body": True}])
        task = asyncio.create_task(asked.run(AdmissionMiddleware(create_api(service), admission)))
        await until(lambda: asked.received >= 2, task)
        admission.draining = True
        admission.refuse_the_unread()
        await until(task.done)  # `wait_for` would cancel it, which ends it too
        await task
        return asked

    asked = asyncio.run(drained())
    assert asked.sent[0]["status"] == 503
    assert b"the server is shutting down" in asked.sent[1]["body"]
    assert admission.in_flight == 0 and not admission.unread


def test_bodies_are_read_and_answers_written_off_the_event_loop(
    service: Direct, admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one body is being read, another request is answered."""
    reading, done = threading.Event(), threading.Event()
    work = RequestBody.work

    def slow(body: RequestBody, limits: Any) -> Any:
        if body.texts == ["slow"]:
            reading.set()
            assert done.wait(60)
        return work(body, limits)

    monkeypatch.setattr(RequestBody, "work", slow)
    app = AdmissionMiddleware(create_api(service), admission)

    async def both() -> tuple[int, int]:
        asked = Asked(URL, [{"type": "http.request", "body": b'{"texts": ["slow"]}'}])
        task = asyncio.create_task(asked.run(app))
        await until(reading.is_set, task)
        other = Asked(URL, [{"type": "http.request", "body": b'{"texts": ["a dog"]}'}])
        await other.run(app)
        done.set()
        await task
        return other.sent[0]["status"], asked.sent[0]["status"]

    assert asyncio.run(both()) == (200, 200)


def test_websockets_are_closed(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/health"):
        pass
    assert refused.value.code == 1008


def test_metrics_and_openapi(client: TestClient) -> None:
    assert "clip_requests_total 1" in client.get("/metrics").text
    document = client.get("/openapi.json").json()
    body = document["paths"][URL]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["additionalProperties"] is False
    assert set(body["properties"]) >= {"images", "labels", "texts", "templates", "top_k"}
    assert "cosine" in json.dumps(body["properties"]["scores"])
    assert "heat_of" in json.dumps(body["properties"]["explain"])
    assert [kind["type"] for kind in body["properties"]["thresholds"]["anyOf"]] == [
        "number", "array", "object", "null",
    ]  # fmt: skip
