"""Weights found, fetched from a server that behaves badly, verified, stored; and the commands for them."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import requests
from urllib3 import HTTPResponse
from urllib3.exceptions import InvalidChunkLength

from clip_common.cli.main import main
from clip_common.config import MINI, PRETRAINED, ClipConfig, Pretrained, WeightsSource
from clip_common.errors import WeightsError
from clip_common.models.factory import load_model
from clip_common.system import cache
from clip_common.weights import download, locate
from clip_common.weights.convert import convert
from clip_common.weights.readers import read_state
from clip_common.weights.tensor_names import to_openai
from clip_common.weights.weights_file import WeightsFile, write_safetensors
from tests.parity import seeded
from tests.parity.tiny import TINY_RN, TINY_VIT
from tests.support.paths import DATA, ROOT

OFFICIAL = DATA / "vit_script.pt"
CONTENT = OFFICIAL.read_bytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A mirror of one file, counting requests; `cut` ends each answer after so many bytes, `delay` comes
    before it and `pause` within, in seconds. `cuts` are those of answers, one by one; `trickle` is the part
    of an answer, "head" or "body", that comes byte by byte."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.cut: int | None = None
        self.cuts: Iterator[int] = iter(())
        self.trickle = ""
        self.ranges = True
        self.flat = False
        self.absent = 404
        self.delay = 0.0
        self.pause = 0.0
        self.status: int | None = None
        self.requests: list[str | None] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/mirror"

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - two selves meet here
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = "/mirror/Tiny.pt" if server.flat else f"/mirror/{SHA256}/Tiny.pt"
                if self.path != wanted:
                    return self.send_error(server.absent)
                asked = self.headers.get("Range")
                server.requests.append(asked)
                time.sleep(server.delay)
                if server.status:
                    return self.send_error(server.status)
                start = int(asked[6:-1]) if asked and server.ranges else 0
                rest = server.content[start:]
                if asked and server.ranges and not rest:
                    return self.send_error(416)
                if server.trickle == "head":
                    return self._trickle(b"HTTP/1.0 200 OK\r\nX-Long: " + bytes([88] * 100_000))
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                if server.pause:
                    self.wfile.flush()
                    threading.Event().wait(server.pause)  # nobody sleeps in these tests
                if server.trickle == "body":
                    return self._trickle(rest)
                with contextlib.suppress(ConnectionError):  # a client that lost its patience
                    self.wfile.write(rest[: next(server.cuts, server.cut)])
                return None

            def _trickle(self, content: bytes) -> None:
                with contextlib.suppress(OSError):
                    for i in range(len(content)):
                        if not server.trickle:
                            return
                        self.wfile.write(content[i : i + 1])
                        threading.Event().wait(0.01)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; also nobody waits between attempts."""
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("clip_common.weights.download.time.sleep", lambda _seconds: None)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Pretrained:
    """A module that is small enough to download in a test."""
    source = WeightsSource("Tiny.pt", SHA256, "MIT", "http://127.0.0.1:9/nobody/listens")
    made = dataclasses.replace(PRETRAINED["clip_vit_b32"], name="clip_tiny", config=TINY_VIT, weights=source)
    monkeypatch.setitem(PRETRAINED, "clip_tiny", made)
    return made


def assert_stored(found: WeightsFile, store: Path) -> None:
    assert found.path == store / "clip_tiny.safetensors"
    assert {file.name for file in store.iterdir()} >= {
        "clip_tiny.safetensors",
        "clip_tiny.safetensors.sha256",
    }
    assert not {"Tiny.pt", "Tiny.pt.part"} & {file.name for file in store.iterdir()}
    state, expected = to_openai(read_state(found.path)), seeded.state(TINY_VIT)
    assert {name: value.dtype for name, value in state.items()} == {n: v.dtype for n, v in expected.items()}
    assert all(np.array_equal(state[name], value) for name, value in expected.items())


# --- downloads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True])
def test_fetch_from_a_mirror(
    record: Pretrained, server: Server, store: Path, flat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.flat = flat
    monkeypatch.setenv("CLIP_HUB_MIRROR", server.url + "/")
    assert_stored(locate.find(record), store)
    assert_stored(locate.find(record), store)
    assert len(server.requests) == 1


def test_a_mirror_that_forbids_what_it_does_not_have(record: Pretrained, server: Server, store: Path) -> None:
    server.flat, server.absent = True, 403
    assert_stored(locate.fetch(record, server.url), store)
    server.flat = False
    with pytest.raises(WeightsError, match=r"no such file at .*answered 403\); no such"):
        locate.fetch(dataclasses.replace(record, name="clip_other", weights=dataclasses.replace(
            record.weights, file="Other.pt")), server.url)  # fmt: skip


def test_a_broken_chunk_is_worth_another_try() -> None:
    """Its name has "Invalid" in it, as those of wrong addresses have."""
    broken = requests.exceptions.ChunkedEncodingError(InvalidChunkLength(HTTPResponse(b""), b""))
    assert download._worth_another_try(broken)
    assert not download._worth_another_try(requests.exceptions.MissingSchema("no scheme"))
    assert not download._worth_another_try(requests.exceptions.ConnectTimeout())
    assert not download._worth_another_try(requests.exceptions.TooManyRedirects("Exceeded 30 redirects."))
    with pytest.raises(requests.ConnectionError) as refused:
        requests.get("http://127.0.0.1:9/nobody/listens", timeout=5)
    assert not download._worth_another_try(refused.value)


def test_a_server_that_falls_silent_is_told_from_one_that_hangs_up(
    record: Pretrained, server: Server, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_READ_TIMEOUT", 0.05)
    server.pause = 0.5
    with pytest.raises(WeightsError, match=r"no data for 0\.05 s"):
        locate.fetch(record, server.url)


def test_a_line_that_trickles_is_given_up(
    record: Pretrained, server: Server, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No byte comes late, and none but a few ever would; what came is kept."""
    monkeypatch.setattr(download, "_SPAN", 0.2)
    server.trickle = "body"
    with pytest.raises(WeightsError, match=r"less than 60 KiB arrived in 0\.2 s"):
        locate.fetch(record, server.url)
    server.trickle = ""
    assert len(server.requests) == 1
    assert_stored(locate.fetch(record, server.url), store)
    assert server.requests[1]


def test_a_head_that_trickles_is_given_up(
    record: Pretrained, server: Server, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_HEAD_TIMEOUT", 0.2)
    server.trickle = "head"
    with pytest.raises(WeightsError, match=r"the headers of its answer did not arrive in 0\.2 s"):
        locate.fetch(record, server.url)
    server.trickle = ""
    assert len(server.requests) == 1


def test_a_line_that_gets_now_farther_and_now_less_far_ends(
    record: Pretrained, server: Server, store: Path
) -> None:
    """To get farther than the time before is no progress, where each time begins anew."""
    server.ranges = False
    server.cuts = iter([30_000, 60_000] * 10)
    with pytest.raises(WeightsError, match="the server closed the connection"):
        locate.fetch(record, server.url)
    assert len(server.requests) <= 8


SMALL = replace(MINI, text=replace(MINI.text, vocab_size=64))
"""clip_mini of few words: a file of it has 14 MB where its own has 65."""


def test_an_incomplete_model_is_not_converted(tmp_path: Path) -> None:
    state = seeded.state(SMALL)
    for missing in ("ln_final.bias", "text_projection", "visual.blocks.3.bn_expand.running_var"):
        source = tmp_path / "incomplete.safetensors"
        write_safetensors({name: value for name, value in state.items() if name != missing}, source, {})
        with pytest.raises(WeightsError, match=missing):
            convert(source, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("config", "block"),
    [
        (SMALL, "transformer.resblocks.0."),
        (MINI, f"transformer.resblocks.{MINI.text.layers - 1}."),
        (SMALL, "visual.blocks.0."),
        (MINI, "visual.blocks.20."),
        (TINY_RN, "visual.layer1.0."),
        (TINY_VIT, "visual.transformer.resblocks.0."),  # of no known architecture
    ],
)
def test_a_model_without_a_block_is_not_converted(config: ClipConfig, block: str, tmp_path: Path) -> None:
    """The tensors that are left may be those of a shallower model."""
    state = {name: value for name, value in seeded.state(config).items() if not name.startswith(block)}
    write_safetensors(state, tmp_path / "left.safetensors", {})
    with pytest.raises(WeightsError, match=rf"left\.safetensors: .*missing: {block}|{block}.*is missing"):
        convert(tmp_path / "left.safetensors", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    state = seeded.state(MINI)
    state["text_projection"][3, 4] = value
    path = tmp_path / "infinite.safetensors"
    write_safetensors(state, path, {})
    with pytest.raises(WeightsError, match="not finite: text_projection"):
        load_model(WeightsFile(path, "a hash", PRETRAINED["clip_mini"]))


def test_a_cut_download_is_resumed(
    record: Pretrained, server: Server, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.cut = 30_000
    assert_stored(locate.fetch(record, server.url), store)
    assert "Tiny.pt interrupted (the server closed the connection); resuming" in caplog.text
    starts = [int(asked[6:-1]) for asked in server.requests[1:] if asked]
    assert len(starts) == len(server.requests) - 1
    assert server.requests[0] is None
    assert starts == sorted(set(starts))
    assert 0 < starts[0] <= 30_000


def test_a_server_that_cannot_resume_starts_again(record: Pretrained, server: Server, store: Path) -> None:
    store.mkdir(parents=True)
    (store / "Tiny.pt.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    assert_stored(locate.fetch(record, server.url), store)
    assert server.requests == ["bytes=1000-"]


def test_a_part_that_is_whole_already(record: Pretrained, server: Server, store: Path) -> None:
    store.mkdir(parents=True)
    (store / "Tiny.pt.part").write_bytes(CONTENT)
    assert_stored(locate.fetch(record, server.url), store)


def test_wrong_bytes_are_never_used(record: Pretrained, server: Server, store: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(WeightsError, match=rf"\({len(CONTENT):,} bytes\).*expected {SHA256}: it was removed"):
        locate.fetch(record, server.url)
    assert not list(store.glob("*.pt*"))
    assert not list(store.glob("*.safetensors"))
    server.content = CONTENT
    assert_stored(locate.fetch(record, server.url), store)


def test_a_server_that_gives_up(record: Pretrained, server: Server, store: Path) -> None:
    server.cut = 0
    with pytest.raises(WeightsError, match=r"cannot download .*put that file into"):
        locate.fetch(record, server.url)
    assert len(server.requests) == 4
    with pytest.raises(WeightsError, match="no such file at"):
        locate.fetch(record, server.url + "/elsewhere")


def test_a_part_that_is_longer_than_the_file(record: Pretrained, server: Server, store: Path) -> None:
    """It cannot be of this file: it goes, and the next try begins anew."""
    store.mkdir(parents=True)
    (store / "Tiny.pt.part").write_bytes(CONTENT + b"more")
    with pytest.raises(WeightsError, match="it was removed; try again"):
        locate.fetch(record, server.url)
    assert_stored(locate.fetch(record, server.url), store)


def test_a_part_of_another_file_never_gets_through(record: Pretrained, server: Server, store: Path) -> None:
    store.mkdir(parents=True)
    (store / "Tiny.pt.part").write_bytes(b"x" * 5000)
    with pytest.raises(WeightsError, match=f"expected {SHA256}"):
        locate.fetch(record, server.url)
    assert not list(store.glob("Tiny*"))
    assert_stored(locate.fetch(record, server.url), store)


def test_a_line_that_breaks_without_resuming_ends(record: Pretrained, server: Server, store: Path) -> None:
    server.cut, server.ranges = 30_000, False
    with pytest.raises(WeightsError, match=f"cannot download {server.url}"):
        locate.fetch(record, server.url)
    assert 2 <= len(server.requests) <= 8


@pytest.mark.parametrize(("status", "attempts"), [(403, 1), (401, 1), (500, 4), (503, 4)])
def test_a_server_that_refuses_is_quoted(
    record: Pretrained, server: Server, store: Path, status: int, attempts: int
) -> None:
    """Tried again only where that can help."""
    server.status = status
    with pytest.raises(WeightsError, match=f"the server answered {status}"):
        locate.fetch(record, server.url)
    assert len(server.requests) == attempts
    server.status = None
    assert_stored(locate.fetch(record, server.url), store)


def test_progress_is_shown_on_standard_error(
    record: Pretrained, server: Server, store: Path, capsys: pytest.CaptureFixture
) -> None:
    assert_stored(locate.fetch(record, server.url), store)
    output, error = capsys.readouterr()
    assert output == ""
    assert "Tiny.pt" in error
    assert "100%" in error


def test_an_address_without_its_beginning_is_said(
    record: Pretrained, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dataclasses.replace(record.weights, base_url=None, huggingface="some/one")
    for endpoint in ("hf-mirror.com", "localhost:8080"):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(WeightsError, match=f"{endpoint}/some/one/.*begins with https:// or http://"):
            locate.fetch(dataclasses.replace(record, weights=source))


@pytest.mark.parametrize("mirror", ["not an address", "ftp://127.0.0.1/x", "http://", "http://127.0.0.1:1/"])
def test_a_mirror_that_is_none_says_so_at_once(record: Pretrained, store: Path, mirror: str) -> None:
    started = time.monotonic()
    with pytest.raises(WeightsError, match=r"(?s)cannot download .*put that file into"):
        locate.fetch(record, mirror)
    assert time.monotonic() - started < 5


def test_a_file_put_there_by_hand_is_not_stored_unverified(
    record: Pretrained, server: Server, store: Path
) -> None:
    """Weights of the right shape under the published name: fetching must not take them for the published."""
    other = {name: value * 0 for name, value in seeded.state(TINY_VIT).items()}
    store.mkdir(parents=True)
    write_safetensors(other, store / "Tiny.pt", {})
    found = locate.fetch(record, server.url)
    (store / "Tiny.pt").unlink(missing_ok=True)
    assert_stored(found, store)


def test_offline_says_which_file_to_put_where(record: Pretrained, store: Path) -> None:
    started = time.monotonic()
    with pytest.raises(WeightsError) as error:
        locate.find(record)
    assert time.monotonic() - started < 5
    for words in (
        "the address cannot be reached",
        "Tiny.pt",
        SHA256,
        str(store),
        "CLIP_HUB_MIRROR",
        "--weights",
    ):
        assert words in str(error.value)


def fetch_in_a_process(record: Pretrained, url: str) -> None:
    locate.fetch(record, url)


def test_two_processes_at_once(record: Pretrained, server: Server, store: Path) -> None:
    server.delay = 1.0
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=fetch_in_a_process, args=(record, server.url)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(server.requests) == 1
    assert_stored(locate.find(record), store)


def test_two_threads_at_once(record: Pretrained, server: Server, store: Path) -> None:
    server.delay = 0.5
    found: list[WeightsFile] = []
    both = [threading.Thread(target=lambda: found.append(locate.find(record))) for _ in range(2)]
    mirrored = dataclasses.replace(record.weights, base_url=server.url)
    record = dataclasses.replace(record, weights=mirrored)
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(60)
    assert len(found) == 2
    assert found[0] == found[1]
    assert len(server.requests) == 1
    assert_stored(found[0], store)


def test_nobody_takes_a_download_that_is_about_to_be_removed(
    record: Pretrained, server: Server, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between download and conversion, seconds for a real file, a second process looks for weights."""
    found_meanwhile: list[WeightsFile | None] = []

    def convert_late(*args: Any) -> Any:
        found_meanwhile.append(locate.find_local(record))
        return convert(*args)

    monkeypatch.setattr(locate, "convert", convert_late)
    assert_stored(locate.fetch(record, server.url), store)
    assert [found for found in found_meanwhile if found and not found.path.exists()] == []


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as unchanged for long at once: their hashes are remembered."""
    monkeypatch.setattr(cache, "_TICKS", -1_000_000_000)


@pytest.fixture
def frozen_cache(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be written any more; root, as whom tests may run, is stopped by no permission."""
    original, folder = tempfile.mkstemp, str(store.parent)

    def mkstemp(*args: Any, **options: Any) -> Any:
        if str(options.get("dir")).startswith(folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return original(*args, **options)

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)


def test_a_full_cache_that_can_be_read_still_serves(
    record: Pretrained,
    server: Server,
    store: Path,
    settled: None,
    request: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stored = locate.fetch(record, server.url)
    shutil.rmtree(store.parent / "hashes")
    request.getfixturevalue("frozen_cache")
    assert locate.find(record) == stored
    assert "Read-only file system" in caplog.text
    assert "CLIP_HUB_CACHE" in caplog.text


def test_a_full_disk_costs_no_answer(
    record: Pretrained, server: Server, store: Path, frozen_cache: None, caplog: pytest.LogCaptureFixture
) -> None:
    found = locate.fetch(record, server.url)
    assert store not in found.path.parents
    assert len(load_model(found).state_dict()) > 10
    assert "CLIP_HUB_CACHE" in caplog.text


def test_a_cache_that_cannot_be_written(
    record: Pretrained, server: Server, tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs speed and a warning, never the answer."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path / "file" / "cache"))
    found = locate.fetch(record, server.url)
    assert len(load_model(found).state_dict()) > 10
    assert "CLIP_HUB_CACHE" in caplog.text


def test_a_disk_that_is_full_everywhere(
    record: Pretrained, server: Server, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(locate, "_fetch_into", fails)
    place = re.escape(tempfile.gettempdir())
    with pytest.raises(WeightsError, match=rf"cannot store .* in {place}: the disk is full: free some space"):
        locate.fetch(record, server.url)


# --- where they are looked for -----------------------------------------------------------------------


def found(*asked: Any) -> WeightsFile:
    """What is on this machine, which must be something."""
    file = locate.find_local(*asked)
    assert file
    return file


def test_order_of_the_search(record: Pretrained, store: Path, tmp_path: Path, monkeypatch: Any) -> None:
    chosen, module = tmp_path / "mine.pt", tmp_path / "module"
    module.mkdir()
    assert locate.find_local(record) is None
    store.mkdir(parents=True)
    shutil.copy(OFFICIAL, store / "Tiny.pt")
    assert found(record).path == store / "Tiny.pt"
    convert(OFFICIAL, store / "clip_tiny.safetensors")
    assert found(record).path == store / "clip_tiny.safetensors"
    shutil.copy(store / "clip_tiny.safetensors", module)
    assert found(record, None, module).path == module / "clip_tiny.safetensors"
    shutil.copy(OFFICIAL, chosen)
    assert found(record, str(chosen), module).path == chosen
    with pytest.raises(WeightsError, match=f"no weights file at {tmp_path}/none"):
        locate.find_local(record, tmp_path / "none", module)
    hub = tmp_path / "hub"
    monkeypatch.setenv("HUB_HOME", str(hub))
    shutil.copytree(module, hub / "modules" / "clip_tiny")
    assert found(record).path == hub / "modules" / "clip_tiny" / "clip_tiny.safetensors"


@pytest.mark.parametrize("locked", ["CLIP_HUB_CACHE", "HUB_HOME", "module"])
def test_what_cannot_be_looked_into_is_not_used(
    record: Pretrained,
    server: Server,
    store: Path,
    locked: str,
    tmp_path: Path,
    monkeypatch: Any,
    caplog: Any,
) -> None:
    """Root, as whom tests may run, may look anywhere; but no name may be as long as this one."""
    folder = tmp_path / ("x" * 300)
    if locked != "module":
        monkeypatch.setenv(locked, str(folder))
    monkeypatch.setenv("CLIP_HUB_MIRROR", server.url)
    found = locate.find(record, None, folder if locked == "module" else None)
    assert len(load_model(found).state_dict()) > 10
    assert "is not used: File name too long" in caplog.text
    with pytest.raises(WeightsError, match=r"no weights file at .*: File name too long"):
        locate.find(record, folder)


def test_a_file_put_there_by_hand_is_verified(record: Pretrained, store: Path) -> None:
    store.mkdir(parents=True)
    (store / "Tiny.pt").write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=r"Tiny\.pt has sha256 .* replace it"):
        locate.find(record)


def test_a_damaged_store_is_fetched_again(record: Pretrained, server: Server, store: Path) -> None:
    path = locate.fetch(record, server.url).path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert locate.find_local(record) is None
    assert_stored(locate.fetch(record, server.url), store)
    assert len(server.requests) == 2


def test_hashes_are_remembered(store: Path, settled: None, tmp_path: Path, monkeypatch: Any) -> None:
    computed: list[int] = []
    original = cache.hash_stream

    def counted(file: BinaryIO) -> str:
        computed.append(1)
        return original(file)

    monkeypatch.setattr(cache, "hash_stream", counted)
    file = tmp_path / "file"
    file.write_bytes(b"one")
    assert cache.sha256_of(file) == cache.sha256_of(file) == hashlib.sha256(b"one").hexdigest()
    assert len(computed) == 1
    file.write_bytes(b"two")
    assert cache.sha256_of(file) == hashlib.sha256(b"two").hexdigest()
    for note in (store.parent / "hashes").iterdir():
        note.write_text("{")
    assert cache.sha256_of(file) == hashlib.sha256(b"two").hexdigest()
    assert len(computed) == 3


@pytest.mark.parametrize("note", ["", "{", "[]", "3", "null", "{}", "without", "of nothing", "\xff\xfe"])
def test_a_damaged_note_of_a_hash_is_computed_again(
    store: Path, settled: None, tmp_path: Path, note: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    cache.sha256_of(file)
    (path,) = (store.parent / "hashes").iterdir()
    whole = json.loads(path.read_text())
    without = {name: value for name, value in whole.items() if name != "sha256"}
    damaged = {"without": json.dumps(without), "of nothing": json.dumps({**whole, "sha256": None})}
    path.write_bytes(damaged.get(note, note).encode("latin1"))
    assert cache.sha256_of(file) == hashlib.sha256(b"one").hexdigest()
    assert json.loads(path.read_text()) == whole


def test_a_damaged_note_of_the_store_is_not_trusted(record: Pretrained, server: Server, store: Path) -> None:
    path = locate.fetch(record, server.url).path
    for junk in (b"", b"\xff\xfe\0", b"0" * 64):
        locate._note(path).write_bytes(junk)
        assert locate.find_local(record) is None
        assert_stored(locate.fetch(record, server.url), store)


# --- stored and loaded -------------------------------------------------------------------------------


def test_converted_files_say_where_they_come_from(record: Pretrained, store: Path, tmp_path: Path) -> None:
    target = tmp_path / "folder" / "out.safetensors"
    convert(OFFICIAL, target)
    content = target.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    note = json.loads(header["__metadata__"]["record"])
    assert note["source_sha256"] == SHA256
    assert (note["source"], note["module"], note["licence"]) == ("vit_script.pt", "clip_tiny", "MIT")
    types = {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    assert types["visual.conv1.weight"] == types["text_projection"] == "F16"
    assert types["token_embedding.weight"] == types["visual.ln_pre.weight"] == types["logit_scale"] == "F32"
    assert header["logit_scale"]["shape"] == []


def test_a_failed_conversion_leaves_no_file(store: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(CONTENT[:-3000])
    with pytest.raises(WeightsError, match=r"bad\.pt"):
        convert(tmp_path / "bad.pt", tmp_path / "folder" / "out.safetensors")
    assert not list(tmp_path.glob("folder/*"))


def test_a_file_is_not_converted_into_itself(store: Path, tmp_path: Path) -> None:
    source, link = tmp_path / "own.safetensors", tmp_path / "link.safetensors"
    source.write_bytes(CONTENT)
    link.symlink_to(source)
    for target in (source, link):
        with pytest.raises(WeightsError, match=r"is the file to convert, .*: choose another name"):
            convert(source, target)
    assert source.read_bytes() == CONTENT and link.is_symlink()


def test_a_loaded_model_is_float32_and_in_eval_mode(record: Pretrained, store: Path) -> None:
    model = load_model(found(record, OFFICIAL))
    assert not model.training
    assert {str(value.dtype) for value in model.state_dict().values()} == {"paddle.float32"}
    state = seeded.state(TINY_VIT)
    assert np.array_equal(model.visual.conv1.weight.numpy(), state["visual.conv1.weight"].astype("float32"))
    assert float(model.logit_scale) == state["logit_scale"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("ln_final.bias"), "missing: ln_final.bias"),
        (lambda state: state.update(more=np.zeros(3, "float32")), "not expected: more"),
        (
            lambda state: state.update(logit_scale=np.zeros((1, 2))),
            r"logit_scale is \[1, 2\] and should be \[\]",
        ),
        (lambda state: state.clear() or state.update(seeded.state(TINY_RN)), "visual.attnpool.c_proj.weight"),
        (lambda state: state.clear() or state.update(fc=np.zeros((2, 2))), "not the weights of a CLIP"),
    ],
)
def test_weights_that_do_not_fit_name_the_file_and_the_tensor(
    record: Pretrained, store: Path, tmp_path: Path, change: Any, said: str
) -> None:
    state = seeded.state(TINY_VIT)
    change(state)
    path = tmp_path / "mine.safetensors"
    write_safetensors(state, path, {})
    with pytest.raises(WeightsError, match=rf"mine\.safetensors: .*{said}"):
        load_model(found(record, path))


# --- the commands ------------------------------------------------------------------------------------


def weights_command(capsys: pytest.CaptureFixture, *argv: str) -> tuple[int, str, str]:
    """Exit status, output and error of `clip-hub weights`."""
    status = main(["weights", *argv])
    return status, *capsys.readouterr()


def test_where_and_list_name_the_file_once_it_is_fetched(
    record: Pretrained, server: Server, store: Path, capsys: pytest.CaptureFixture
) -> None:
    path = str(store / "clip_tiny.safetensors")
    status, _, error = weights_command(capsys, "where", "clip_tiny")
    assert (status, "put that file into" in error) == (1, True)
    assert path not in weights_command(capsys, "list")[1]
    status, output, _ = weights_command(capsys, "fetch", "clip_tiny", "--mirror", server.url)
    assert (status, output.strip()) == (0, path)
    assert weights_command(capsys, "where", "clip_tiny")[1].strip() == path
    assert path in weights_command(capsys, "list")[1]


def test_convert_writes_safetensors_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    target = tmp_path / "out.safetensors"
    status, output, _ = weights_command(capsys, "convert", str(OFFICIAL), str(target))
    assert (status, f"{len(seeded.state(TINY_VIT))} tensors of" in output) == (0, True)
    assert read_state(target).keys() == seeded.state(TINY_VIT).keys()
    status, _, error = weights_command(capsys, "convert", str(OFFICIAL), str(tmp_path / "out.onnx"))
    assert (status, "written as .safetensors" in error) == (1, True)


def test_verify_refuses_the_weights_of_another_module(capsys: pytest.CaptureFixture) -> None:
    status, _, error = weights_command(capsys, "verify", "clip_rn50", str(OFFICIAL))
    assert (status, "do not fit RN50" in error) == (1, True)


def test_verify_accepts_the_shipped_weights(capsys: pytest.CaptureFixture) -> None:
    image = str(ROOT / "examples" / "diagram.png")
    assert main(["weights", "verify", "clip_mini", "--image", image]) == 0
    assert "ok      sha256" in capsys.readouterr().out


def test_verify_tells_other_weights(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Weights of the right shape that are not the published ones are told by what they compute."""
    golden = PRETRAINED["clip_vit_b32"].reference_values
    monkeypatch.setitem(
        PRETRAINED, "clip_mini", dataclasses.replace(PRETRAINED["clip_mini"], reference_values=golden)
    )
    assert main(["weights", "verify", "clip_mini"]) == 1
    assert "DIFFERS mean squared text feature" in capsys.readouterr().out
