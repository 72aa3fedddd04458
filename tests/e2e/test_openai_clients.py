"""The real OpenAI client, and LangChain's embedding class, against the Ray Serve app, really started."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="of the extra [test]")
openai = pytest.importorskip("openai", reason="of the extra [test]")

from clip_common.config import pretrained
from clip_common.predictor import Predictor
from tests.support.paths import ROOT
from tests.support.served_app import Server

MODULE, KEY = "clip_mini", "s3cret"
REQUESTS, CLIENTS = 200, 32
IMAGES = [path.read_bytes() for path in sorted((ROOT / "examples").glob("*.png"))]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("openai") / "log.txt", CLIP_HUB_API_KEY=KEY)
    yield started
    assert started.stop() == 0
    assert "Traceback" not in started.log.read_text()


@pytest.fixture(scope="module")
def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/v1"


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    return openai.OpenAI(base_url=address, api_key=KEY, max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(pretrained(MODULE))


def data_url(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def request(number: int) -> tuple[list[Any], list[Any]]:
    """Inputs of a request of its own, and the same for `expected`: texts, images, or both."""
    texts = [f"thing number {number}", f"a drawing of {number % 7} dogs", "a cat"][: 1 + number % 3]
    images = [IMAGES[(number + i) % len(IMAGES)] for i in range(1 + number % 2)]
    asked = [{"image": data_url(image)} for image in images]
    if number % 4 == 1:
        return [*asked], [*images]
    if number % 4 == 2:
        return [texts[0], *asked, *texts[1:]], [texts[0], *images, *texts[1:]]
    return [*texts], [*texts]


def expected(predictor: Predictor, given: list[Any]) -> np.ndarray:
    """Each by itself."""
    found = [
        predictor.embed(texts=[one])["texts"]
        if isinstance(one, str)
        else predictor.embed(images=[one])["images"]
        for one in given
    ]
    return np.concatenate(found)


def test_two_hundred_requests_at_once_are_the_single_answers(client: Any, predictor: Predictor) -> None:
    asked = [request(number) for number in range(REQUESTS)]

    def ask(number: int) -> Any:
        form = {"encoding_format": "float"} if number % 5 == 0 else {}  # left out, the client takes base64
        return client.embeddings.create(model=MODULE, input=asked[number][0], **form)

    with ThreadPoolExecutor(CLIENTS) as pool:
        replies = list(pool.map(ask, range(REQUESTS)))
    for (_, given), reply in zip(asked, replies, strict=True):
        assert [item.index for item in reply.data] == list(range(len(given)))
        found = np.array([item.embedding for item in reply.data])
        np.testing.assert_allclose(found, expected(predictor, given), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        texts = [one for one in given if isinstance(one, str)]
        tokens = predictor.count_tokens(texts) if texts else 0
        assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (tokens, tokens)


def test_images_by_modality(client: Any, predictor: Predictor) -> None:
    reply = client.embeddings.create(
        model=MODULE, input=[data_url(image) for image in IMAGES[:2]], extra_body={"modality": "image"}
    )
    found = np.array([item.embedding for item in reply.data])
    np.testing.assert_allclose(found, expected(predictor, IMAGES[:2]), atol=1e-5)


def test_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == [MODULE]
    assert client.models.retrieve(MODULE).owned_by == "clip-hub"


def test_each_error_is_the_clients_own(client: Any, address: str) -> None:
    create = client.embeddings.create
    with pytest.raises(openai.NotFoundError) as unknown:
        create(model="text-embedding-3-small", input="a dog")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as shorter:
        create(model=MODULE, input="a dog", dimensions=64)
    assert shorter.value.param == "dimensions"
    with pytest.raises(openai.BadRequestError, match="no address is fetched"):
        create(model=MODULE, input=["http://127.0.0.1/x.png"], extra_body={"modality": "image"})
    with pytest.raises(openai.APIStatusError, match="CLIP_HUB_MAX_TEXTS") as many:
        create(model=MODULE, input=["a"] * 1001)
    assert many.value.status_code == 413
    stranger = openai.OpenAI(base_url=address, api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as wrong:
        stranger.models.list()
    assert wrong.value.code == "invalid_api_key"


def test_langchain(address: str, predictor: Predictor) -> None:
    langchain = pytest.importorskip("langchain_openai", reason="of the extra [test]")
    embedder = langchain.OpenAIEmbeddings(
        model=MODULE, base_url=address, api_key=KEY, check_embedding_ctx_length=False
    )
    texts = [f"photo number {number}" for number in range(40)]
    found = np.array(embedder.embed_documents(texts, chunk_size=16))
    np.testing.assert_allclose(found, expected(predictor, texts), atol=1e-5)
    query = np.array([embedder.embed_query("a dog")])
    np.testing.assert_allclose(query, expected(predictor, ["a dog"]), atol=1e-5)
