"""An S3 server (moto) in threads of the test's process; it can be made to fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import requests
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from clip_common.embedding import bucket_services

_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>no</Message></Error>"


def never(_what: str) -> bool:
    return False


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *given: Any) -> None:
        pass


class S3Server:
    """An S3 server at an address.

    Attributes:
        requests: requests so far, as `METHOD /bucket/key?query`.
        encodings: Content-Encoding headers of all requests.
        fails: called with a request as in `requests`; if it returns true, the answer is an error.
        error: HTTP status and code of this error.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.encodings: set[str] = set()
        self.fails: Callable[[str], object] = never
        self.error = ("503 Slow Down", "SlowDown")
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        bucket_services._system.cache_clear()  # it remembers the servers of earlier tests
        requests.post(f"{self.address}/moto-api/reset", timeout=30)  # moto's buckets are global

    def environment(self) -> dict[str, str]:
        """Environment variables that make this process and its children use this server."""
        return {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ENDPOINT_URL_S3": self.address,
        }

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        what = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        if "aws-sdk-cpp" in environ.get("HTTP_USER_AGENT", ""):  # Arrow, not the client that fills buckets
            self.requests.append(what)
            self.encodings.add(environ.get("HTTP_CONTENT_ENCODING", ""))
            if self.fails(what):
                status, code = self.error
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                body = _ERROR.format(code).encode()
                start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
                return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
        return self._app(environ, start)
