"""The page as a client that posts by hand finds it: no addresses, no endless uploads, no endless maps."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fastapi
import gradio
import pytest
from gradio import processing_utils
from gradio.data_classes import ImageData
from PIL import Image
from starlette.testclient import TestClient

from clip_common.config import pretrained
from clip_common.predictor import Predictor
from clip_common.search.searcher import Finder
from clip_common.server.web_page import create_page
from tests.support.paths import ROOT

API = "/gradio/clip_mini/gradio_api"
CLASSIFY, EXPLAIN, COMPARE, SEARCH = range(4)
COMPARED, EACH_BY_ITSELF = "compare the labels (softmax)", "each label by itself (cosine)"


HOSTILE = (
    "<script>alert(1)</script>",
    "' onerror='alert(1)",
    '" onload="alert(1)" x="',
    "\u202eevil\u202c {score} {0.__class__} %s",
)


async def answer(body: dict[str, Any]) -> Any:
    if "texts" in body:
        return {"images": [[1.0, 0.0]] * len(body["images"]), "texts": [[0.0, 1.0]] * len(body["texts"])}
    if body.get("explain"):
        heat = [[1.0, 0.0], [0.0, 0.0]]
        return [[{"label": label, "heat": heat, "heat_of": "centre"} for label in body["labels"]]]
    if body.get("labels", [""])[0] in HOSTILE:
        return [[{"label": label, "score": 0.25} for label in body["labels"]]]
    if body.get("scores") == "cosine":
        found = [{"label": "a dog", "score": 0.2714}, {"label": "a cat", "score": -0.1}]
        return [[item for item in found if item["score"] >= body.get("thresholds", -1)]]
    return [[{"label": "a dog", "score": 1.0}]]


@pytest.fixture
def asked() -> list[dict[str, Any]]:
    """The bodies that the page made."""
    return []


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[dict[str, Any]]) -> gradio.Blocks:
    async def noted(body: dict[str, Any]) -> Any:
        asked.append(body)
        return await answer(body)

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return create_page(pretrained("clip_mini"), noted, Finder("none.db", Predictor("clip_mini")))


@pytest.fixture
def client(page: gradio.Blocks) -> Iterator[TestClient]:
    api = fastapi.FastAPI()
    gradio.mount_gradio_app(api, page, "/gradio/clip_mini", show_api=False)
    with TestClient(api) as opened:
        yield opened


def events_of(client: TestClient, function: int, data: list[Any], chosen: Any = None) -> list[dict[str, Any]]:
    """What a click gives, on what of a component."""
    body = {"data": data, "fn_index": function, "session_hash": "s", "event_data": chosen}
    assert client.post(f"{API}/queue/join", json=body).status_code == 200
    events = client.get(f"{API}/queue/data", params={"session_hash": "s"}).text
    return [
        json.loads(line.removeprefix("data: ")) for line in events.splitlines() if line.startswith("data: ")
    ]


def ask(client: TestClient, function: int, data: list[Any]) -> dict[str, Any]:
    """The last event."""
    return next(line for line in events_of(client, function, data) if line["msg"] == "process_completed")


def explain(client: TestClient, label: Any) -> tuple[list[str], dict[str, Any]]:
    """What a click on a label shows, one after the other, and the last event."""
    events = events_of(client, EXPLAIN, [None], {"index": 0, "value": label})
    shown = [event["output"]["data"][0] for event in events if event["msg"] == "process_generating"]
    return shown, next(event for event in events if event["msg"] == "process_completed")


def classify(client: TestClient, labels: str, scores: str = COMPARED) -> Path:
    uploaded = upload(client, "dog.png")
    reply = ask(client, CLASSIFY, [file(uploaded), labels, "", scores, "", None])
    assert reply["success"], reply
    return Path(uploaded)


def file(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def upload(client: TestClient, name: str) -> str:
    content = (ROOT / "examples" / "dog.png").read_bytes()
    return client.post(f"{API}/upload", files={"files": (name, content)}).json()[0]


PUBLIC = "http://some.public.host/x.png"


@pytest.mark.parametrize(
    ("function", "data", "address"),
    [
        (CLASSIFY, lambda address: [file(address), "", "", COMPARED, "", None], PUBLIC),
        (CLASSIFY, lambda address: [file(address), "", "", COMPARED, "", None], "https://127.0.0.1/x.png"),
        (CLASSIFY, lambda address: [None, file(address), "", COMPARED, "", None], PUBLIC),
        (COMPARE, lambda address: [[file(address)], "a dog"], PUBLIC),
        (SEARCH, lambda address: ["", file(address), 0.5, ""], PUBLIC),
    ],
)
def test_an_address_is_not_fetched(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, function: int, data: Any, address: str
) -> None:
    fetched: list[str] = []

    async def fetch(url: str, *_: Any, **__: Any) -> str:
        fetched.append(url)
        raise ValueError

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    reply = ask(client, function, data(address))
    assert not reply["success"] and fetched == []
    assert "An address is not fetched" in json.dumps(reply)


def test_an_upload_is_taken(client: TestClient) -> None:
    reply = ask(client, CLASSIFY, [file(upload(client, "dog.png")), "a dog, a cat", "", COMPARED, "", None])
    assert reply["success"], reply
    assert reply["output"]["data"][0]["label"] == "a dog"


def test_the_model_sees_the_file_that_was_uploaded(client: TestClient, asked: list[dict[str, Any]]) -> None:
    """A copy without its transparency, on black, would be another image."""
    ask(client, CLASSIFY, [file(upload(client, "dog.png")), "a dog, a cat", "", COMPARED, "", None])
    (body,) = asked
    assert base64.b64decode(body["images"][0]) == (ROOT / "examples" / "dog.png").read_bytes()


@pytest.mark.parametrize(
    ("threshold", "shown"),
    [(" ", ["a dog (0.2714)", "a cat (-0.1000)"]), ("0.25", ["a dog (0.2714)"]), ("0.5", None)],
)
def test_cosines_and_none_of_these(client: TestClient, threshold: str, shown: Any) -> None:
    image = file(upload(client, "dog.png"))
    reply = ask(client, CLASSIFY, [image, "a dog, a cat", "", EACH_BY_ITSELF, threshold, None])
    assert reply["success"], reply
    data = reply["output"]["data"][0]
    if shown is None:
        assert (data["label"], data["confidences"]) == ("none of these", None)
    else:
        assert [item["label"] for item in data["confidences"]] == shown


def test_a_label_is_explained_once_and_shown_again(client: TestClient, asked: list[dict[str, Any]]) -> None:
    classify(client, "a dog, a cat")
    (working, *_), reply = explain(client, "a dog")
    assert reply["success"], reply
    assert "Looking for what supports “<bdi" in working and ">a dog</bdi>”" in working
    assert asked[1] == {**asked[0], "explain": 10}
    shown, _ = explain(client, "a dog")
    assert len(shown) == 1 and "src='data:image/png;base64," in shown[0]
    assert len(asked) == 2
    classify(client, "a dog, a bird")
    explain(client, "a dog")
    assert [body["labels"] for body in asked[2:]] == [["a dog", "a bird"]] * 2


def test_a_label_with_its_cosine_is_explained(client: TestClient, asked: list[dict[str, Any]]) -> None:
    classify(client, "a dog, a cat", EACH_BY_ITSELF)
    _, reply = explain(client, "a cat (-0.1000)")
    assert reply["success"] and asked[1]["scores"] == "cosine"


@pytest.mark.parametrize("label", HOSTILE)
def test_a_label_is_text_whatever_is_in_it(client: TestClient, label: str) -> None:
    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            seen.extend([tag, *(name for name, _ in attrs)])

    classify(client, "\n".join([label, *HOSTILE]) if label == HOSTILE[0] else f"{label}\na dog")
    seen: list[str] = []
    explain(client, label)
    (shown,), _ = explain(client, label)
    Tags().feed(shown)
    assert set(seen) == {"figure", "img", "src", "alt", "style", "figcaption", "role", "bdi"}
    assert "\u202e" not in shown


@pytest.mark.parametrize("chosen", ["a wolf", None, 5, ["a dog"], {"a": 1}, "x" * 100_000])
def test_what_is_no_label_of_the_answer_is_not_explained(client: TestClient, chosen: Any) -> None:
    for _ in range(2):  # before there is an answer, and with one
        shown, reply = explain(client, chosen)
        assert shown == [] and not reply["success"] and "classify again" in json.dumps(reply)
        classify(client, "a dog, a cat")


def test_an_explanation_that_is_refused_is_not_waited_for(client: TestClient) -> None:
    uploaded = classify(client, "a dog, a cat")
    uploaded.unlink()
    shown, reply = explain(client, "a dog")
    assert not reply["success"] and "kept for ten minutes" in json.dumps(reply)
    assert "Looking for" in shown[0] and "Click a label" in str(shown[-1])


def test_a_page_without_heat_maps_does_not_speak_of_them() -> None:
    for explains in (True, False):
        page = create_page(pretrained("clip_mini"), answer, explains=explains)
        assert ("explain" in [function.name for function in page.fns.values()]) is explains


def test_a_template_is_shown_in_the_modules_language() -> None:
    page = create_page(pretrained("clip_cn_vit_b16"), answer)
    shown = [getattr(block, "placeholder", None) for block in page.blocks.values()]
    assert "一张{}的照片" in shown and "a photo of a {}" not in str(shown)


def test_a_threshold_that_is_no_number_is_said(client: TestClient) -> None:
    image = file(upload(client, "dog.png"))
    reply = ask(client, CLASSIFY, [image, "a dog, a cat", "", EACH_BY_ITSELF, "high", None])
    assert not reply["success"] and "The threshold 'high' is not a number" in json.dumps(reply)


def test_a_map_of_a_few_pairs_is_drawn_and_of_many_is_refused(client: TestClient) -> None:
    image = file(upload(client, "dog.png"))
    reply = ask(client, COMPARE, [[image, image], "a dog\na cat"])
    assert reply["success"], reply
    drawn = client.get(f"{API}/file={reply['output']['data'][0]['path']}")
    assert drawn.content.startswith(b"\x89PNG")
    reply = ask(client, COMPARE, [[image] * 30, "\n".join(f"text {i}" for i in range(30))])
    assert not reply["success"]
    assert "30 images and 30 texts are 900 pairs" in json.dumps(reply)


def test_uploads_are_deleted_after_a_while(client: TestClient, page: gradio.Blocks) -> None:
    assert page.delete_cache is not None
    every, age = page.delete_cache
    assert 0 < every <= age <= 3600
    uploaded = Path(upload(client, "dog.png"))
    assert uploaded.is_file()
    gradio.route_utils.delete_files_created_by_app(page, age=3600)
    assert uploaded.is_file()
    gradio.route_utils.delete_files_created_by_app(page, age=None)
    assert not uploaded.exists()


def test_gradio_takes_a_heic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    path = tmp_path / "IMG_1.HEIC"
    Image.new("RGB", (64, 64), "red").save(path, "HEIF")
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    create_page(pretrained("clip_mini"), answer)
    field = gradio.Image(type="filepath", image_mode=None)
    assert field.preprocess(ImageData(path=str(path), orig_name=path.name)) == str(path)
