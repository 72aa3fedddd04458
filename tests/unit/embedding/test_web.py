"""Images from web servers: the manners of it, against a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clip_common.embedding import web
from clip_common.embedding.sources import items_of
from clip_common.embedding.store import Store
from clip_common.errors import ImageError
from clip_common.system import prefetch
from tests.support.stores import contents, png, run

Answer = Callable[[BaseHTTPRequestHandler], None]


def body(content: bytes, status: int = 200, **headers: str) -> Answer:
    """An answer of so many bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


class Server:
    """A web server whose answers a test says, by path; what is not said is not found.

    Attributes:
        asked: paths, in order.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, Answer | list[Answer]] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                server.asked.append(self.path)
                server.headers.append(dict(self.headers))
                answer = server.answers.get(path, body(b"no", 404))
                if isinstance(answer, list):
                    answer = answer.pop(0) if len(answer) > 1 else answer[0]
                try:
                    answer(self)
                except OSError:
                    self.close_connection = True

            def log_message(self, *given: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, path: str) -> int:
        return self.asked.count(path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    web._client.cache_clear()
    made = Server()
    yield made
    made.stop()
    web._client.cache_clear()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited for, without waiting."""
    found: list[float] = []
    clock = [0.0]

    def sleep(seconds: float) -> None:
        found.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(web.time, "sleep", sleep)
    monkeypatch.setattr(web.time, "monotonic", lambda: clock[0])
    return found


def fault(address: str) -> str:
    with pytest.raises((OSError, ImageError)) as raised:
        web.read(address)
    error = raised.value
    return str(error.strerror) if isinstance(error, OSError) else str(error)


def test_a_list_of_addresses(server: Server, tmp_path: Path) -> None:
    server.answers |= {"/a.png": body(png()), "/b": body(png("blue")), "/page.png": body(b"<html>")}
    listed = tmp_path / "list.txt"
    lines = ["/a.png", "", "/a.png#top", "/b?X-Amz-Signature=s3cret&size=2", "/gone.png", "/page.png"]
    lines += ["/b?k=s3cret"]
    listed.write_text("\ufeff" + "\r\n".join(line and server.address + line for line in lines))
    output = tmp_path / "out"
    report = run(listed, output)
    assert (report.embedded, report.failed) == (3, 2)
    hidden = f"b?k=hidden-{hashlib.sha256(b's3cret').hexdigest()[:16]}"
    assert set(contents(output)) == {f"{server.address}/{name}" for name in ("a.png", "b?size=2", hidden)}
    assert "/b?X-Amz-Signature=s3cret&size=2" in server.asked
    errors = Store(output).errors()
    gone, page = (errors[f"{server.address}/{name}.png"] for name in ("gone", "page"))
    assert gone == (
        "",
        f"{server.address}/gone.png: cannot be read (the server answers 404: it is gone)",
    )
    assert page[0] == "address" and "not an image" in page[1]
    assert all(b"s3cret" not in file.read_bytes() for file in output.iterdir())
    assert Counter(server.asked)["/robots.txt"] == 1
    assert {one["User-Agent"].split("/")[0] for one in server.headers} == {"clip-hub"}
    server.asked.clear()
    again = run(listed, output)
    assert (again.embedded, again.known, again.failed, again.failed_before) == (0, 3, 1, 1)
    assert server.asked == ["/robots.txt"] or "/a.png" not in server.asked  # what is there is not asked for


def test_a_column_of_addresses(server: Server, tmp_path: Path) -> None:
    server.answers["/a.png"] = body(png())
    table = tmp_path / "laion.csv"
    table.write_text(f"url,caption\n{server.address}/a.png,a dog\nftp://x/a.png,no\n")
    good, bad = items_of([str(table)])
    assert (good.read(), good.caption) == (png(), "a dog")
    assert bad.fault == "ftp://x/a.png: addresses begin with s3://, gs:// or https://"


def test_robots_txt_is_obeyed(server: Server) -> None:
    server.answers |= {
        "/robots.txt": body(
            b"User-agent: *\nDisallow: /private\n\n"
            b"User-agent: clip-hub\nDisallow: /mine\nDisallow: /a?k=mine\n"
        ),
        "/mine/a.png": body(png()),
        "/private/a.png": body(png()),
    }
    assert fault(f"{server.address}/mine/a.png") == f"{server.address}/robots.txt does not allow it"
    assert fault(f"{server.address}/a?k=mine") == f"{server.address}/robots.txt does not allow it"
    assert web.read(f"{server.address}/private/a.png") == png()
    assert server.asked == ["/robots.txt", "/private/a.png"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_robots_txt_that_nobody_may_read_forbids_nothing(server: Server, status: int) -> None:
    server.answers |= {"/robots.txt": body(b"no", status), "/a.png": body(png())}
    assert web.read(f"{server.address}/a.png") == png()


def test_a_robots_txt_that_the_server_fails_to_give_forbids_all(server: Server, waits: list[float]) -> None:
    server.answers |= {"/robots.txt": body(b"no", 500), "/a.png": body(png())}
    assert fault(f"{server.address}/a.png") == "its robots.txt cannot be read: the server answers 500"
    assert server.count("/a.png") == 0


def test_a_pause_that_robots_txt_asks_for(server: Server, waits: list[float]) -> None:
    server.answers |= {"/robots.txt": body(b"User-agent: *\nCrawl-delay: 7\n"), "/a.png": body(png())}
    for _ in range(3):
        web.read(f"{server.address}/a.png")
    assert sum(waits) == pytest.approx(14)


def test_a_busy_server_is_asked_again_when_it_says(server: Server, waits: list[float]) -> None:
    server.answers["/a.png"] = [
        body(b"", 503, Retry_After="7"),
        body(b"", 429, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT"),
        body(b"", 500),
        body(png()),
    ]
    assert web.read(f"{server.address}/a.png") == png()
    assert waits[0] == 7 and 1 <= waits[-1] <= 4


def test_a_server_that_asks_for_too_much_patience(server: Server, waits: list[float]) -> None:
    server.answers["/a.png"] = body(b"", 503, Retry_After="3600")
    said = fault(f"{server.address}/a.png")
    assert said == "the server answers 503, and asks to wait 3600 s"
    assert server.count("/a.png") == 1 and not waits


def test_a_server_that_fails_is_given_up_for_a_while(server: Server, waits: list[float]) -> None:
    server.answers["/bad.png"] = body(b"", 503)
    for _ in range(5):
        assert fault(f"{server.address}/bad.png") == "the server answers 503"
    asked = len(server.asked)
    said = fault(f"{server.address}/bad.png")
    assert "is not asked for a while, after 5 failures in a row; the last: the server answers 503" in said
    assert len(server.asked) == asked
    server.answers["/bad.png"] = body(png())
    web.time.sleep(601)
    assert web.read(f"{server.address}/bad.png") == png()


def test_what_is_gone_speaks_for_the_server(server: Server, waits: list[float]) -> None:
    for _ in range(10):
        assert "404" in fault(f"{server.address}/gone.png")
    assert server.count("/gone.png") == 10  # nothing of it is asked twice, and nothing is given up


def test_an_image_that_is_too_large_is_not_read_to_its_end(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MOST_BYTES", 1000)
    sent: list[int] = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        while len(sent) < 100_000:
            handler.wfile.write(bytes(1000))
            sent.append(1)

    server.answers |= {"/said.png": body(bytes(1001)), "/endless.png": endless}
    said = fault(f"{server.address}/said.png")
    assert said == f"{server.address}/said.png: has 1,001 bytes, at most 1,000 are allowed"
    assert "at most 1,000 are allowed" in fault(f"{server.address}/endless.png")
    assert len(sent) < 100_000


def test_a_body_that_trickles_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_ALLOWED", 0.3)
    done = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not done.wait(0.01):
            handler.wfile.write(b"x")

    server.answers["/slow.png"] = trickle
    assert "it did not arrive completely" in fault(f"{server.address}/slow.png")
    done.set()


def test_a_head_that_trickles_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """No byte of it is late."""
    monkeypatch.setattr(web, "_ALLOWED", 0.3)
    done = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.flush_headers()
        handler.wfile.write(b"X-Long: ")
        while not done.wait(0.01):
            handler.wfile.write(b"x")

    server.answers["/slow.png"] = trickle
    said: list[str] = []
    reading = threading.Thread(target=lambda: said.append(fault(f"{server.address}/slow.png")), daemon=True)
    reading.start()
    reading.join(60)
    done.set()
    assert len(said) == 1 and "it did not arrive completely" in said[0]


@pytest.mark.parametrize(
    "line", ["Crawl-delay: \u00b2", "Disallow: //[", "Crawl-delay: " + "9" * 5000, "Request-rate: \u00b2/1"]
)
def test_a_garbled_line_of_robots_txt_costs_itself_alone(server: Server, line: str) -> None:
    rules = f"User-agent: *\nDisallow: /private\n{line}\nDisallow: /mine\n"
    server.answers |= {"/robots.txt": body(rules.encode()), "/a.png": body(png())}
    assert web.read(f"{server.address}/a.png") == png()
    for hidden in ("/private/a.png", "/mine/a.png"):
        assert "does not allow it" in fault(f"{server.address}{hidden}")
    assert server.count("/robots.txt") == 1


def test_a_pause_without_measure_is_the_longest(server: Server) -> None:
    rules = "User-agent: *\nCrawl-delay: " + "9" * 400
    server.answers |= {"/robots.txt": body(rules.encode()), "/a.png": body(png())}
    assert web.read(f"{server.address}/a.png") == png()
    assert web._client()._server(server.address).pause == 30


def test_who_has_gone_speaks_neither_for_nor_against_a_server(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run that is interrupted, and begun again in the same process, would find it given up."""

    def gone() -> None:
        raise prefetch.UnreadError

    server.answers["/a.png"] = body(png())
    assert web.read(f"{server.address}/a.png") == png()
    with monkeypatch.context() as patched:
        patched.setattr(web, "_in_time", lambda *_: gone())
        for _ in range(5):
            with pytest.raises(prefetch.UnreadError):
                web.read(f"{server.address}/a.png")
    assert web.read(f"{server.address}/a.png") == png()


def test_a_body_that_breaks_off_is_asked_for_again(server: Server, waits: list[float]) -> None:
    def broken(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        handler.wfile.write(b"x")
        handler.close_connection = True

    server.answers["/a.png"] = [broken, body(png())]
    assert web.read(f"{server.address}/a.png") == png()


def test_addresses_that_moved(server: Server) -> None:
    server.answers |= {
        "/robots.txt": body(b"User-agent: *\nDisallow: /private\n"),
        "/old.png": body(b"", 301, Location="/new%20name.png"),
        "/new%20name.png": body(png()),
        "/loop.png": body(b"", 302, Location="/loop.png"),
        "/file.png": body(b"", 302, Location="file:///etc/passwd"),
        "/hidden.png": body(b"", 302, Location="/private/a.png"),
        "/nowhere.png": body(b"", 302, Location="http://[::1"),
    }
    assert web.read(f"{server.address}/old.png") == png()
    assert fault(f"{server.address}/loop.png") == "it redirects more than 5 times"
    assert server.count("/loop.png") == 6
    assert fault(f"{server.address}/file.png") == "it redirects to an address that is not http:// or https://"
    assert "does not allow it" in fault(f"{server.address}/hidden.png")
    assert "is not a valid address" in fault(f"{server.address}/nowhere.png")


@pytest.mark.parametrize(
    "address", ["https://", "http://[::1", "https:///a.png", "http://a b/x", "http://x:y/"]
)
def test_what_is_no_address(server: Server, address: str) -> None:
    assert "is not a valid address" in fault(address)


def test_a_server_that_is_not_there(server: Server) -> None:
    address = server.address.replace("http:", "https:")
    assert fault(f"{address}/a.png").startswith("its robots.txt cannot be read: its certificate is not valid")
    server.stop()
    assert fault(f"{server.address}/a.png?token=s3cret") == (
        "its robots.txt cannot be read: the server cannot be reached"
    )


def test_few_connections_to_one_server(server: Server) -> None:
    lock, now, most = threading.Lock(), [0], [0]
    together = threading.Barrier(4)

    def slow(handler: BaseHTTPRequestHandler) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait(30)  # four there are, and no fifth comes until they have gone
        with lock:
            now[0] -= 1
        body(png())(handler)

    server.answers["/a.png"] = slow
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(web.read, [f"{server.address}/a.png"] * 16)) == [png()] * 16
    assert most[0] == 4
