"""Where a published file is looked for, and in which order."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clip_common.config import PRETRAINED, WeightsSource
from clip_common.errors import WeightsError
from clip_common.weights.download import addresses, download

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NOBODY = "http://127.0.0.1:9/nobody/listens"


class Site:
    """A server of some files by their paths, which notes what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"

    def _handler(site) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - two selves meet here
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                content = site.files.get(self.path)
                if content is None:
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                return None

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.http.shutdown()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIP_HUB_MIRROR", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


SOURCE = WeightsSource("a.pt", SHA256, "MIT", release="https://authors.org/a.pt", huggingface="some/one",
                       modelscope="Some/one")  # fmt: skip


def test_the_order_of_addresses() -> None:
    assert addresses(SOURCE) == [
        "https://authors.org/a.pt",
        "https://huggingface.co/some/one/resolve/main/a.pt",
        "https://hf-mirror.com/some/one/resolve/main/a.pt",
        "https://modelscope.cn/models/Some/one/resolve/master/a.pt",
    ]


def test_hf_endpoint_takes_the_place_of_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.intranet/")
    assert addresses(SOURCE)[1:3] == [
        "https://hub.intranet/some/one/resolve/main/a.pt",
        "https://modelscope.cn/models/Some/one/resolve/master/a.pt",
    ]


def test_a_mirror_takes_the_place_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_HUB_MIRROR", "https://mirror/clip/")
    assert addresses(SOURCE) == [f"https://mirror/clip/{SHA256}/a.pt", "https://mirror/clip/a.pt"]


def test_a_flat_mirror_has_files_under_the_names_that_the_cache_has() -> None:
    """Many repositories call their file the same."""
    source = PRETRAINED["clip_vit_b32"].published[2]
    assert source.tag == "laion2b_s34b_b79k"
    flat = source.kept_as("clip_vit_b32")
    assert addresses(source, "https://mirror", flat) == [
        f"https://mirror/{source.sha256}/open_clip_model.safetensors",
        "https://mirror/clip_vit_b32.laion2b_s34b_b79k.safetensors",
    ]


@pytest.mark.parametrize("name", ["clip_rn50", "clip_vit_l14_336"])
def test_openais_own_address_comes_first_then_copies_of_its_files(name: str) -> None:
    source = PRETRAINED[name].weights
    assert addresses(source) == [
        f"https://openaipublic.azureedge.net/clip/models/{source.sha256}/{source.file}",
        f"https://huggingface.co/jinaai/clip-models/resolve/main/{source.file}",
        f"https://hf-mirror.com/jinaai/clip-models/resolve/main/{source.file}",
    ]


@pytest.mark.parametrize("record", PRETRAINED.values(), ids=lambda record: record.name)
def test_records_are_whole(record: object) -> None:
    published = record.published  # type: ignore[attr-defined]
    tags = [source.tag for source in published]
    assert len(tags) == len(set(tags))
    assert len({source.kept_as("x") for source in published}) == len(published)
    assert record.config.activation == record.weights.activation  # type: ignore[attr-defined]
    assert record.weights.preprocessing in (None, record.preprocessing)  # type: ignore[attr-defined]
    for source in published:
        assert source.sha256 is None or len(bytes.fromhex(source.sha256)) == 32
        assert addresses(source) or record.name == "clip_mini"  # type: ignore[attr-defined]


def test_the_next_source_is_tried_where_one_fails(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One does not answer, one has no such file, one has another file of that name; the fourth has it."""
    site.files = {"/wrong": b"x" * len(CONTENT), "/right": CONTENT, "/never": CONTENT}
    urls = [NOBODY, *map(site.url, ("/absent", "/wrong", "/right", "/never"))]
    download(urls, tmp_path / "part", SHA256)
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert site.asked == ["/absent", "/wrong", "/right"]


def test_what_every_source_said_is_told(site: Site, tmp_path: Path) -> None:
    site.files = {"/wrong": b"x" * len(CONTENT)}
    with pytest.raises(WeightsError) as caught:
        download([NOBODY, site.url("/absent"), site.url("/wrong")], tmp_path / "part", SHA256)
    for words in (NOBODY, "cannot be reached", "/absent (the server answered 404)", f"expected {SHA256}"):
        assert words in str(caught.value)
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize("url", ["http://me:secret@127.0.0.1:9/a?k=secret", "http:/me:secret@mirror/a"])
def test_a_mirrors_password_is_not_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot download http:") as caught:
        download([url], tmp_path / "part", SHA256)
    assert "secret" not in str(caught.value)


def test_a_proxy_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(WeightsError) as caught:
        download(["https://mirror.example/a"], tmp_path / "part", SHA256)
    assert str(caught.value) == (
        "cannot download https://mirror.example/a: the proxy of HTTPS_PROXY or HTTP_PROXY cannot be reached"
    )
