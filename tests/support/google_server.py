"""A server with the part of Google Cloud Storage's API that Arrow's client uses.

It runs in its own process: Arrow's client waits for some answers while it holds Python's global lock.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import requests

_OBJECT = re.compile(r"/(?:upload/)?storage/v1/b/([^/]+)/o/?(.*)")
Answer = tuple[int, dict[str, str], bytes]
NOT_FOUND: Answer = 404, {}, b'{"error": {"code": 404, "message": "not found"}}'


class GoogleServer:
    """The bucket `photos` at an address, and its server process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def environment(self) -> dict[str, str]:
        """Environment variables that make clients use this server."""
        return {"STORAGE_EMULATOR_HOST": self.address, "CLIP_HUB_ANONYMOUS": "1"}

    def put(self, key: str, content: bytes) -> None:
        requests.put(f"{self.address}/control/{quote(key)}", content, timeout=30).raise_for_status()

    def delete(self, key: str) -> None:
        requests.delete(f"{self.address}/control/{quote(key)}", timeout=30).raise_for_status()

    def fail_every(self, number: int) -> None:
        """Answer 503 to every `number`-th request; 0 for none."""
        requests.post(f"{self.address}/control/{number}", timeout=30).raise_for_status()

    def taken_requests(self) -> list[str]:
        """The requests since the last call, as `METHOD path?query`."""
        return requests.get(f"{self.address}/control/", timeout=30).json()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


class _Bucket:
    """The objects by key: their bytes, and the number of the change that wrote them."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, int]] = {}
        self._changes = 0
        self._asked: list[str] = []
        self._count = self._fails_every = 0

    def control(self, method: str, key: str, body: bytes) -> Answer:
        """Answer a request of the test."""
        if method == "PUT":
            self._put(key, body)
        elif method == "DELETE":
            del self._objects[key]
        elif method == "POST":
            self._fails_every = int(key)
        else:
            asked, self._asked = self._asked, []
            return 200, {}, json.dumps(asked).encode()
        return 200, {}, b""

    def answer(self, method: str, path: str, body: bytes, wanted: str | None) -> Answer:
        """Answer a request of the client; `wanted` is the Range header, or the Host header for POST."""
        self._asked.append(f"{method} {path}")
        self._count += 1
        if self._fails_every and self._count % self._fails_every == 0:
            return 503, {}, b"{}"
        address = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        found = _OBJECT.fullmatch(address.path)
        if not found or found[1] != "photos":
            return NOT_FOUND
        key = unquote(found[2]) or query.get("name", "")
        if method == "POST":
            return 200, {"Location": f"http://{wanted}{path}&upload_id=1"}, b"{}"
        if method == "PUT":
            self._put(key, body)
            return 200, {}, json.dumps(self._described(key)).encode()
        if not key:
            items = [self._described(one) for one in sorted(self._objects) if one.startswith(query["prefix"])]
            return 200, {}, json.dumps({"kind": "storage#objects", "items": items}).encode()
        if key not in self._objects:
            return NOT_FOUND
        if method == "DELETE":
            del self._objects[key]
            return 204, {}, b""
        if query.get("alt") != "media":
            return 200, {}, json.dumps(self._described(key)).encode()
        return self._content(key, wanted)

    def _put(self, key: str, content: bytes) -> None:
        self._changes += 1
        self._objects[key] = content, self._changes

    def _content(self, key: str, wanted: str | None) -> Answer:
        content, change = self._objects[key]
        headers = {"x-goog-generation": str(change)}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
        if not found:
            return 200, headers, content
        first = int(found[1])
        part = content[first : int(found[2]) + 1 if found[2] else None]
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        return 206, headers, part

    def _described(self, key: str) -> dict[str, str]:
        content, change = self._objects[key]
        written = f"2026-01-01T00:{change // 60:02d}:{change % 60:02d}.000Z"
        names = ("kind", "bucket", "name", "size", "generation", "timeCreated", "updated")
        values = ("storage#object", "photos", key, str(len(content)), str(change), written, written)
        return dict(zip(names, values, strict=True))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each answer waits 40 ms between headers and body
    bucket = _Bucket()

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/control/"):
            key = unquote(self.path.removeprefix("/control/"))
            status, headers, content = self.bucket.control(self.command, key, body)
        else:
            wanted = self.headers["Host"] if self.command == "POST" else self.headers.get("Range")
            status, headers, content = self.bucket.answer(self.command, self.path, body, wanted)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the names that the base class calls


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
