"""The page as a client that posts by hand finds it: no addresses, no endless uploads, no endless maps."""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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
from clip_common.search.finder import Finder
from clip_common.server import web_page
from clip_common.server.web_page import create_page, mount_page
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


class Visitor:
    """One who has the page open, in a session of their own.

    Attributes:
        asked: the bodies that the page made for them.
    """

    def __init__(self, client: TestClient, asked: list[dict[str, Any]]) -> None:
        asked.clear()
        self.client, self.asked = client, asked
        self._session = uuid.uuid4().hex

    def events_of(self, function: int, data: list[Any], chosen: Any = None) -> list[dict[str, Any]]:
        """What a click gives, on what of a component."""
        body = {"data": data, "fn_index": function, "session_hash": self._session, "event_data": chosen}
        assert self.client.post(f"{API}/queue/join", json=body).status_code == 200
        events = self.client.get(f"{API}/queue/data", params={"session_hash": self._session}).text
        return [
            json.loads(line.removeprefix("data: "))
            for line in events.splitlines()
            if line.startswith("data: ")
        ]

    def upload(self, name: str) -> str:
        content = (ROOT / "examples" / "dog.png").read_bytes()
        return self.client.post(f"{API}/upload", files={"files": (name, content)}).json()[0]


@contextmanager
def opened(uploads: Path, asked: list[dict[str, Any]]) -> Iterator[tuple[gradio.Blocks, TestClient]]:
    """A page and its client, which keeps uploads there and notes what it asks."""

    async def noted(body: dict[str, Any]) -> Any:
        asked.append(body)
        return await answer(body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        page = create_page(pretrained("clip_mini"), noted, Finder("none.db", Predictor("clip_mini")))
        api = fastapi.FastAPI()
        mount_page(api, page, "/gradio/clip_mini")
        with TestClient(api, raise_server_exceptions=False) as client:
            yield page, client


@pytest.fixture(scope="module")
def everyones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, list[dict[str, Any]]]]:
    """The page that visitors open: gradio takes half a second to make one."""
    asked: list[dict[str, Any]] = []
    with opened(tmp_path_factory.mktemp("uploads"), asked) as (_, client):
        yield client, asked


@pytest.fixture
def visitor(everyones: tuple[TestClient, list[dict[str, Any]]]) -> Visitor:
    return Visitor(*everyones)


def ask(visitor: Visitor, function: int, data: list[Any]) -> dict[str, Any]:
    """The last event."""
    return next(line for line in visitor.events_of(function, data) if line["msg"] == "process_completed")


def explain(visitor: Visitor, label: Any) -> tuple[list[str], dict[str, Any]]:
    """What a click on a label shows, one after the other, and the last event."""
    events = visitor.events_of(EXPLAIN, [None], {"index": 0, "value": label})
    shown = [event["output"]["data"][0] for event in events if event["msg"] == "process_generating"]
    return shown, next(event for event in events if event["msg"] == "process_completed")


def classify(visitor: Visitor, labels: str, scores: str = COMPARED) -> Path:
    uploaded = visitor.upload("dog.png")
    reply = ask(visitor, CLASSIFY, [file(uploaded), labels, "", scores, "", None])
    assert reply["success"], reply
    return Path(uploaded)


def file(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


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
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, function: int, data: Any, address: str
) -> None:
    fetched: list[str] = []

    async def fetch(url: str, *_: Any, **__: Any) -> str:
        fetched.append(url)
        raise ValueError

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    reply = ask(visitor, function, data(address))
    assert not reply["success"] and fetched == []
    assert "An address is not fetched" in json.dumps(reply)


DATA = "data:image/png;base64," + base64.b64encode((ROOT / "examples" / "dog.png").read_bytes()).decode()
FORMS: dict[str, Any] = {
    "plain": file,
    "unmarked": lambda path: {"path": path},
    "stream": lambda path: file(path) | {"is_stream": True},
    "drawing": lambda path: {"path": path, "orig_name": "x.svg"},
    "with an address": lambda path: file(path) | {"url": PUBLIC},
}


@pytest.mark.parametrize("function", [CLASSIFY, COMPARE, SEARCH])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("place", ["other/dog.png", "{uploads}/{up}/other/dog.png", "nothing.png", "other"])
def test_a_file_that_was_not_uploaded_is_not_read(
    visitor: Visitor, tmp_path: Path, function: int, form: Any, place: str
) -> None:
    """No path of the server, however it is posted: it would be copied to where anybody can read it."""
    (tmp_path / "other").mkdir()
    secret = tmp_path / "other" / "dog.png"
    secret.write_bytes((ROOT / "examples" / "dog.png").read_bytes() + uuid.uuid4().bytes)
    uploads = Path(visitor.upload("first.png")).parent.parent
    before = sorted(uploads.rglob("*"))
    posted = form(str(tmp_path / place.format(uploads=uploads, up=os.path.relpath(tmp_path, uploads))))
    data = {
        CLASSIFY: [posted, "a dog, a cat", "", COMPARED, "", None],
        COMPARE: [[posted], "a dog"],
        SEARCH: ["", posted, 0.5, ""],
    }
    reply = ask(visitor, function, data[function])
    assert not reply["success"] and visitor.asked == []
    assert sorted(uploads.rglob("*")) == before


@pytest.mark.parametrize("function", [999, -1, 10**30])
def test_an_unknown_function_of_the_page_is_told_without_a_traceback(visitor: Visitor, function: int) -> None:
    body = {"data": [], "fn_index": function, "session_hash": "x"}
    for place in ("queue/join", "run/predict", "api/predict"):
        reply = visitor.client.post(f"{API}/{place}", json=body)
        assert 400 <= reply.status_code < 500 and "Traceback" not in reply.text, reply.text


def test_uploads_are_refused_while_too_many_are_kept(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = visitor.upload("first.png")
    kept = sum(file.stat().st_size for file in Path(path).parent.parent.rglob("*"))
    monkeypatch.setattr(web_page, "_UPLOAD_BYTES", kept)
    assert visitor.upload("second.png")
    content = (ROOT / "examples" / "cat.png").read_bytes()
    reply = visitor.client.post(f"{API}/upload", files={"files": ("third.png", content)})
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert "too many uploads are kept" in reply.json()["msg"]
    answered = ask(visitor, CLASSIFY, [file(path), "a dog, a cat", "", COMPARED, "", None])
    assert answered["success"], answered
    monkeypatch.undo()
    assert visitor.upload("third.png")


def test_a_damaged_upload_is_the_clients_fault(visitor: Visitor) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=XX"}
    damaged = visitor.client.post(f"{API}/upload", content=b"abc", headers=form)
    long = visitor.client.post(f"{API}/upload", files={"files": ("x" * 5000 + ".png", b"x")})
    for reply in (damaged, long):
        assert reply.status_code == 400 and "The upload cannot be read: " in reply.json()["detail"]


def test_the_content_of_a_data_url_is_not_kept(visitor: Visitor) -> None:
    uploads = Path(visitor.upload("first.png")).parent.parent
    before = sorted(uploads.rglob("*"))
    for posted in ({"url": DATA}, {"path": visitor.upload("first.png"), "url": DATA}):
        reply = ask(visitor, CLASSIFY, [posted, "a dog", "", COMPARED, "", None])
        assert not reply["success"] and "Only an uploaded file is taken" in json.dumps(reply)
    assert sorted(uploads.rglob("*")) == before


def test_an_upload_is_taken(visitor: Visitor) -> None:
    reply = ask(visitor, CLASSIFY, [file(visitor.upload("dog.png")), "a dog, a cat", "", COMPARED, "", None])
    assert reply["success"], reply
    assert reply["output"]["data"][0]["label"] == "a dog"


def test_the_model_sees_the_file_that_was_uploaded(visitor: Visitor) -> None:
    """A copy without its transparency, on black, would be another image."""
    ask(visitor, CLASSIFY, [file(visitor.upload("dog.png")), "a dog, a cat", "", COMPARED, "", None])
    (body,) = visitor.asked
    assert base64.b64decode(body["images"][0]) == (ROOT / "examples" / "dog.png").read_bytes()


@pytest.mark.parametrize(
    ("threshold", "shown"),
    [(" ", ["a dog (0.2714)", "a cat (-0.1000)"]), ("0.25", ["a dog (0.2714)"]), ("0.5", None)],
)
def test_cosines_and_none_of_these(visitor: Visitor, threshold: str, shown: Any) -> None:
    image = file(visitor.upload("dog.png"))
    reply = ask(visitor, CLASSIFY, [image, "a dog, a cat", "", EACH_BY_ITSELF, threshold, None])
    assert reply["success"], reply
    data = reply["output"]["data"][0]
    if shown is None:
        assert (data["label"], data["confidences"]) == ("none of these", None)
    else:
        assert [item["label"] for item in data["confidences"]] == shown


def test_a_label_is_explained_once_and_shown_again(visitor: Visitor) -> None:
    classify(visitor, "a dog, a cat")
    (working, *_), reply = explain(visitor, "a dog")
    assert reply["success"], reply
    assert "Looking for what supports “<bdi" in working and ">a dog</bdi>”" in working
    assert visitor.asked[1] == {**visitor.asked[0], "explain": 10}
    shown, _ = explain(visitor, "a dog")
    assert len(shown) == 1 and "src='data:image/png;base64," in shown[0]
    assert len(visitor.asked) == 2
    classify(visitor, "a dog, a bird")
    explain(visitor, "a dog")
    assert [body["labels"] for body in visitor.asked[2:]] == [["a dog", "a bird"]] * 2


def test_a_label_with_its_cosine_is_explained(visitor: Visitor) -> None:
    classify(visitor, "a dog, a cat", EACH_BY_ITSELF)
    _, reply = explain(visitor, "a cat (-0.1000)")
    assert reply["success"] and visitor.asked[1]["scores"] == "cosine"


@pytest.mark.parametrize("label", HOSTILE)
def test_a_label_is_text_whatever_is_in_it(visitor: Visitor, label: str) -> None:
    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            seen.extend([tag, *(name for name, _ in attrs)])

    classify(visitor, "\n".join([label, *HOSTILE]) if label == HOSTILE[0] else f"{label}\na dog")
    seen: list[str] = []
    explain(visitor, label)
    (shown,), _ = explain(visitor, label)
    Tags().feed(shown)
    assert set(seen) == {"figure", "img", "src", "alt", "style", "figcaption", "role", "bdi"}
    assert "\u202e" not in shown


@pytest.mark.parametrize("chosen", ["a wolf", None, 5, ["a dog"], {"a": 1}, "x" * 100_000])
def test_what_is_no_label_of_the_answer_is_not_explained(visitor: Visitor, chosen: Any) -> None:
    for _ in range(2):  # before there is an answer, and with one
        shown, reply = explain(visitor, chosen)
        assert shown == [] and not reply["success"] and "classify again" in json.dumps(reply)
        classify(visitor, "a dog, a cat")


def test_an_explanation_that_is_refused_is_not_waited_for(visitor: Visitor) -> None:
    uploaded = classify(visitor, "a dog, a cat")
    uploaded.unlink()
    shown, reply = explain(visitor, "a dog")
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


def test_a_threshold_that_is_no_number_is_said(visitor: Visitor) -> None:
    image = file(visitor.upload("dog.png"))
    reply = ask(visitor, CLASSIFY, [image, "a dog, a cat", "", EACH_BY_ITSELF, "high", None])
    assert not reply["success"] and "The threshold 'high' is not a number" in json.dumps(reply)


def test_a_map_of_a_few_pairs_is_drawn_and_of_many_is_refused(visitor: Visitor) -> None:
    image = file(visitor.upload("dog.png"))
    reply = ask(visitor, COMPARE, [[image, image], "a dog\na cat"])
    assert reply["success"], reply
    drawn = visitor.client.get(f"{API}/file={reply['output']['data'][0]['path']}")
    assert drawn.content.startswith(b"\x89PNG")
    reply = ask(visitor, COMPARE, [[image] * 30, "\n".join(f"text {i}" for i in range(30))])
    assert not reply["success"]
    assert "30 images and 30 texts are 900 pairs" in json.dumps(reply)


def test_uploads_are_deleted_after_a_while(tmp_path: Path) -> None:
    with opened(tmp_path, []) as (page, client):
        assert page.delete_cache is not None
        every, age = page.delete_cache
        assert 0 < every <= age <= 3600
        uploaded = Path(Visitor(client, []).upload("dog.png"))
        assert uploaded.is_file() and tmp_path in uploaded.parents
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
