"""The routes that OpenAI's clients know, without Ray: what they take and refuse, and in which form."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from clip_common.errors import BusyError
from clip_common.predictor import Predictor
from clip_common.server.admission import Admission
from clip_common.text.tokenizer import tokenizer_of
from tests.support.direct_service import MODULE, Direct
from tests.support.paths import ROOT

URL = "/v1/embeddings"
TEXTS = ["a dog", "an apple on a table", "!", "a dog"]
IMAGES = {name: (ROOT / "examples" / f"{name}.png").read_bytes() for name in ("dog", "cat")}
PLAIN = {name: base64.b64encode(content).decode() for name, content in IMAGES.items()}
DATA = {name: f"data:image/png;base64,{content}" for name, content in PLAIN.items()}


@pytest.fixture
def admission() -> Admission:
    return Admission(None, body_bytes=2_000_000, bytes_in_flight=5_000_000, body_seconds=5)


def ask(client: TestClient, given: Any, **fields: Any) -> Any:
    reply = client.post(URL, json={"model": MODULE, "input": given, **fields})
    assert reply.status_code == 200, reply.text[:500]
    return reply.json()


def embeddings(content: Any) -> np.ndarray:
    assert [item["index"] for item in content["data"]] == list(range(len(content["data"])))
    assert {item["object"] for item in content["data"]} == {"embedding"}
    found = np.array([item["embedding"] for item in content["data"]], np.float32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    return found


def test_texts_in_their_order(client: TestClient, service: Direct) -> None:
    content = ask(client, TEXTS)
    assert (content["object"], content["model"]) == ("list", MODULE)
    expected = service.predictor.embed(texts=TEXTS)["texts"]
    np.testing.assert_allclose(embeddings(content), expected, atol=1e-6)
    tokens = sum(len(tokenizer_of(service.predictor.record.config.text).encode(text)) + 2 for text in TEXTS)
    assert content["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert tokens == 4 + 7 + 3 + 4
    assert service.seen == [(MODULE, 200)]


@pytest.mark.parametrize("given", ["a dog", ["a dog"], {"text": "a dog"}, [{"text": "a dog"}]])
def test_one_text_by_four_spellings(client: TestClient, service: Direct, given: Any) -> None:
    content = ask(client, given, user="somebody")
    expected = service.predictor.embed(texts=["a dog"])["texts"]
    np.testing.assert_allclose(embeddings(content), expected, atol=1e-6)
    assert content["usage"]["prompt_tokens"] == 4


def test_base64_is_little_endian_float32(client: TestClient) -> None:
    numbers = embeddings(ask(client, TEXTS, encoding_format="float"))
    packed = [item["embedding"] for item in ask(client, TEXTS, encoding_format="base64")["data"]]
    unpacked = np.stack([np.frombuffer(base64.b64decode(text), "<f4") for text in packed])
    np.testing.assert_array_equal(numbers, unpacked)
    assert embeddings(ask(client, TEXTS, encoding_format=None)).shape == numbers.shape


def test_the_size_that_embeddings_have_may_be_asked_for(client: TestClient) -> None:
    assert embeddings(ask(client, TEXTS, dimensions=512)).shape[1] == 512


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ([{"image": DATA["dog"]}, {"image": PLAIN["cat"]}], {}),
        ([DATA["dog"], PLAIN["cat"]], {"modality": "image"}),
        ([{"image": DATA["dog"]}, DATA["cat"]], {"modality": "image"}),
    ],
)
def test_images_in_the_forms_of_other_servers(
    client: TestClient, service: Direct, given: Any, fields: Any
) -> None:
    content = ask(client, given, **fields)
    expected = service.predictor.embed(images=[IMAGES["dog"], IMAGES["cat"]])["images"]
    np.testing.assert_allclose(embeddings(content), expected, atol=1e-6)
    assert content["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


def test_texts_among_images_keep_their_places(client: TestClient, service: Direct) -> None:
    given = ["a cat", {"image": DATA["cat"]}, {"text": "a dog"}, {"image": DATA["dog"]}, "a cat"]
    content = ask(client, given, encoding_format="float")
    of = service.predictor.embed(images=[IMAGES["cat"], IMAGES["dog"]], texts=["a cat", "a dog"])
    texts, images = of["texts"], of["images"]
    expected = [texts[0], images[0], texts[1], images[1], texts[0]]
    np.testing.assert_allclose(embeddings(content), expected, atol=1e-6)
    assert content["usage"]["total_tokens"] == 12


def test_predict_answers_as_before(client: TestClient) -> None:
    assert set(client.post(f"/predict/{MODULE}", json={"texts": ["a"]}).json()["results"]) == {
        "images",
        "texts",
    }


def body(given: str, **fields: Any) -> bytes:
    """A body with an input as it is written."""
    rest = "".join(f", {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items())
    return f'{{"model": "{MODULE}", "input": {given}{rest}}}'.encode()


REFUSED: list[tuple[bytes, int, str, str | None]] = [
    (b"", 400, "the body is not JSON", None),
    (b"[1]", 400, "should be an object", None),
    (b"[" * 100_000, 400, "recursion limit", None),
    (body("[" * 150 + "]" * 150), 400, "input[0] is neither", "input"),
    (b"{}", 400, "field 'model': Field required", "model"),
    (b'{"model": "clip_mini"}', 400, "field 'input': Field required", "input"),
    (b'{"model": 5, "input": "a"}', 400, "field 'model'", "model"),
    (b'{"model": "gpt-4", "input": "a"}', 404, "no model named 'gpt-4' is served here: there are", "model"),
    (b'{"model": "\\u0000", "input": "a"}', 404, "no model named '\\x00'", "model"),
    (body('"a"', dimensions=64), 400, "dimensions is 64, and embeddings of clip_mini have 512", "dimensions"),
    (body('"a"', dimensions="64"), 400, "field 'dimensions': Input should be a valid integer", "dimensions"),
    (body('"a"', encoding_format="int8"), 400, "field 'encoding_format'", "encoding_format"),
    (body('"a"', modality="audio"), 400, "field 'modality'", "modality"),
    (body('"a"', user=5), 400, "field 'user'", "user"),
    (body('"a"', texts=["a"]), 400, "unknown field 'texts' (known: model, input, enc", "texts"),
    (body('""'), 400, "input is blank", "input"),
    (body(json.dumps([{"image": PLAIN["dog"]}, "a", " \n"])), 400, "input[2] is blank", "input"),
    (body("[]"), 400, "input is empty", "input"),
    (body('""'), 400, "input is blank", "input"),
    (body('["a", {"image": "aGk="}, {"text": " "}]'), 400, "input[2] is blank", "input"),
    (body("null"), 400, "input is neither a text nor", "input"),
    (body("NaN"), 400, "input is neither a text nor", "input"),
    (body("true"), 400, "input is neither a text nor", "input"),
    (body("5"), 400, "input holds token ids", "input"),
    (body("[320, 1929]"), 400, "input[0] holds token ids", "input"),
    (body("[[320, 1929], [320]]"), 400, "check_embedding_ctx_length=False", "input"),
    (body('["a", ["b"]]'), 400, "input[1] is neither a text nor", "input"),
    (body('["a", null]'), 400, "input[1] is neither a text nor", "input"),
    (body('["a", {"text": 5}]'), 400, "input[1] is neither a text nor", "input"),
    (body('[{"text": "a", "image": "b"}]'), 400, "input[0] is neither a text nor", "input"),
    (body('[{"image_url": "http://x/"}]'), 400, "input[0] is neither a text nor", "input"),
    (body('["a", {"image": "http://127.0.0.1/x.png"}]'), 400, "input[1] is not base64 but an addr", "input"),
    (body('"HTTPS://127.0.0.1/x"', modality="image"), 400, "input is not base64 but an address", "input"),
    (body('["a", "b", {"image": "/etc/passwd"}]'), 400, "input[2] is not base64", "input"),
    (body('["a", {"image": "data:image/png,abc"}]'), 400, "input[1] is a data URL that is not", "input"),
    (body('["a", {"image": "aGk="}]'), 400, "input[1]: not an image", "input"),
    (body('["a", {"image": ""}]'), 400, "input[1]: the file is empty", "input"),
    (body(json.dumps(["a", DATA["dog"]])), 400, "input[1] is a data URL of an image among texts", "input"),
    (body(json.dumps(["a", "word " * 150])), 400, "the limit is 77", "input"),
    (body(json.dumps(["a", "x" * 2000])), 413, "input[1] has 2000 characters", "input"),
    (body(json.dumps(["a"] * 10_000)), 413, "CLIP_HUB_MAX_TEXTS", "input"),
    (body(json.dumps([{"image": "aGk="}] * 65)), 413, "CLIP_HUB_MAX_PICTURES", "input"),
    (body(json.dumps([1] * 10_000)), 400, "input[0] holds token ids", "input"),
    (body('"a"', x="a" * 3_000_000), 413, "the body has more than 2,000,000 bytes", None),
]


@pytest.mark.parametrize(("content", "status", "words", "param"), REFUSED)
def test_refusals_in_openais_form(
    client: TestClient, content: bytes, status: int, words: str, param: str | None
) -> None:
    reply = client.post(URL, content=content)
    error = reply.json()["error"]
    assert (reply.status_code, words in error["message"]) == (status, True), reply.text[:500]
    code = "model_not_found" if status == 404 else None
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert set(error) == {"message", "type", "param", "code"}


def test_of_a_key_that_is_given_twice_the_last_counts(client: TestClient) -> None:
    reply = client.post(URL, content=body('"a"').replace(b"{", b'{"model": "gpt-4", "input": [5], '))
    assert len(reply.json()["data"]) == 1


def test_busy_and_broken(client: TestClient, service: Direct) -> None:
    service.fault = BusyError("128 requests wait already")
    reply = client.post(URL, content=body('"a"'))
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert reply.json()["error"]["type"] == "server_error"
    service.fault = RuntimeError("secret of the house")
    reply = client.post(URL, content=body('"a"'))
    assert (reply.status_code, "secret" in reply.text) == (500, False)
    assert reply.json()["error"]["message"] == "the server failed; its log says why"
    assert service.seen == [(MODULE, 503), (MODULE, 500)]


def test_the_api_key(client: TestClient, admission: Admission) -> None:
    admission.api_key = "s3cret"
    for method, path in (("POST", URL), ("GET", "/v1/models"), ("GET", "/v1/nothing")):
        reply = client.request(method, path, headers={"authorization": "Bearer wrong"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    headers = {"authorization": "Bearer s3cret"}
    assert client.post(URL, content=body('"a"'), headers=headers).status_code == 200
    assert client.get("/v1/models", headers=headers).status_code == 200
    assert client.post(f"/predict/{MODULE}").json()["status"] == "101"


def test_what_stands_before_the_routes_refuses_in_the_same_form(
    client: TestClient, admission: Admission
) -> None:
    packed = {"content-encoding": "gzip"}
    assert client.post(URL, content=gzip.compress(body('"a"')), headers=packed).status_code == 200
    for content, headers, status in (
        (body('"a"'), packed, 400),
        (gzip.compress(b" " * 3_000_000), packed, 413),
        (b"x", {"content-encoding": "br"}, 415),
    ):
        reply = client.post(URL, content=content, headers=headers)
        assert (reply.status_code, reply.json()["error"]["type"]) == (status, "invalid_request_error")
    admission.draining = True
    reply = client.post(URL, content=body('"a"'))
    assert (reply.status_code, reply.json()["error"]["type"]) == (503, "server_error")
    assert reply.headers["retry-after"] == "1"


def test_an_answer_that_there_is_no_room_for(client: TestClient, admission: Admission) -> None:
    admission.bytes_held = 4_990_000
    reply = client.post(URL, content=body(json.dumps(["a"] * 100)))
    assert (reply.status_code, reply.json()["error"]["message"]) == (503, "the server holds too many answers")
    assert admission.bytes_held == 4_990_000


def test_models(client: TestClient) -> None:
    content = client.get("/v1/models").json()
    assert content["object"] == "list"
    (model,) = content["data"]
    assert (model["id"], model["object"]) == (MODULE, "model")
    assert client.get(f"/v1/models/{MODULE}").json() == model
    for name in ("gpt-4", "a/b", "%00"):
        reply = client.get(f"/v1/models/{name}")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


def test_unknown_routes_have_the_form_of_their_neighbours(client: TestClient) -> None:
    for method, path, status in (
        ("POST", "/v1/chat/completions", 404),
        ("GET", URL, 405),
        ("DELETE", "/v1/models", 405),
    ):
        reply = client.request(method, path)
        assert reply.status_code == status
        assert f"{method} {path} is not served" in reply.json()["error"]["message"]
    assert client.get("/nothing").json() == {"detail": "Not Found"}


def test_the_openapi_document_has_them(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {URL, "/v1/models", "/v1/models/{name}"} <= set(paths)
    schema = paths[URL]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["required"]) == {"model", "input"}


@pytest.mark.parametrize(
    ("module", "texts"),
    [("clip_mini", ["", "! ! !", "a dog", "<|endoftext|> a"]), ("clip_cn_vit_b16", ["", "一只狗", "a dog!"])],
)
def test_tokens_are_those_that_the_tokenizer_makes(module: str, texts: list[str]) -> None:
    predictor = Predictor(module)
    encode = tokenizer_of(predictor.record.config.text).encode
    assert [predictor.count_tokens([text]) for text in texts] == [len(encode(text)) + 2 for text in texts]
    assert predictor.count_tokens(texts) == sum(len(encode(text)) + 2 for text in texts)
