"""Admission control before every route: the API key, limits on sizes, and a count of requests in flight."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import json
import os
import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import RequestError
from .openai_api import PREFIX, error_content

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Refusal = tuple[int, str, dict[str, str]]
"""Status, message, headers."""
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/health", "/ready")
_API_KEY = "CLIP_HUB_API_KEY"
RETRY_AFTER = {"retry-after": "1"}
_DRAINING: Refusal = (503, "the server is shutting down", RETRY_AFTER | {"connection": "close"})
_CHUNK = 1 << 16  # bytes; larger responses are sent in chunks of this size
_INFLATED = 1 << 20  # bytes of a compressed body that are decompressed before the event loop continues
_LINGER = 2.0  # seconds in which the body of a refused request is thrown away


def api_key_from_environment() -> str | None:
    """The API key in CLIP_HUB_API_KEY, stripped (secret files often end with a newline); None if not set.

    Raises:
        RequestError: it is set, but blank, or no header can carry it.
    """
    given = os.environ.get(_API_KEY, "")
    key = given.strip()
    if given and not key:
        raise RequestError(f"{_API_KEY} is blank: set it to a key, or unset it to allow everybody")
    if any(character < " " or character == "\x7f" for character in key):
        raise RequestError(
            f"{_API_KEY} has a line end or control character inside, which no header can carry"
        )
    return key or None


@dataclass
class Admission:
    """Limits for requests, and the current load. Shared by all requests of a gateway.

    Attributes:
        api_key: required as `Authorization: Bearer KEY`, or as the password of basic authentication; None
            requires no key. `/health` and `/ready` never require one, and read no body.
        body_bytes: maximum size of one body, decompressed.
        bytes_in_flight: maximum size of all bodies and large responses held at a time.
        body_seconds: maximum time for receiving a body.
        draining: reject all new requests.
        in_flight: number of requests being processed, without endless responses.
        bytes_held: current size of all bodies and large responses held.
        endless: tasks that send responses without an end, such as the events of a web page.
        unread: tasks that are receiving a body.
    """

    api_key: str | None
    body_bytes: int
    bytes_in_flight: int
    body_seconds: float
    draining: bool = False
    in_flight: int = 0
    bytes_held: int = 0
    endless: set[asyncio.Task] = field(default_factory=set)
    unread: set[asyncio.Future] = field(default_factory=set)

    def end_the_endless(self) -> None:
        """Cancel the tasks that send endless responses. Thread-safe."""
        _cancel(self.endless)

    def refuse_the_unread(self) -> None:
        """While draining, reject the requests whose bodies are incomplete. Thread-safe."""
        _cancel(self.unread)


def _cancel(tasks: Iterable[asyncio.Future]) -> None:
    for task in tuple(tasks):
        task.get_loop().call_soon_threadsafe(task.cancel)


class AdmissionMiddleware:
    """ASGI middleware that applies an `Admission`.

    It receives the complete body, within the limits, before the app sees the request, and sends large
    responses in chunks, as fast as the client reads.
    """

    def __init__(self, app: App, admission: Admission) -> None:
        self.app, self.admission = app, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the app, or reject it."""
        if scope["type"] == "websocket":  # not supported
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        held, answer = _Held(self.admission), _Answer(self.admission, send, scope["path"])
        try:
            refusal = self._refusal(scope)
            if not refusal and scope["path"] not in OPEN_PATHS:
                refusal = await self._read(scope, receive, held)
            if refusal:
                await _refuse(send, receive, scope["path"], refusal)
            else:
                await self.app(_unpacked(scope), _replay(held.body, receive), answer.send)
        except asyncio.CancelledError:
            if not self.admission.draining:
                raise
            await answer.end()
        finally:
            held.release()
            answer.release()

    def _refusal(self, scope: Scope) -> Refusal | None:
        path, headers = scope["path"], dict(scope["headers"])
        if path in OPEN_PATHS:
            return None
        if self.admission.api_key and not _has_key(
            headers.get(b"authorization", b""), self.admission.api_key
        ):
            return 401, "the API key is missing or wrong", {"www-authenticate": 'Basic realm="clip"'}
        if self.admission.draining:
            return _DRAINING
        encoding = _encoding(headers)
        if encoding not in (b"identity", b"gzip"):
            name = encoding.decode("latin-1")[:40]
            return (
                415,
                f"the body's content-encoding is {name!r}: send it plain or gzip",
                {"connection": "close"},
            )
        return None

    async def _read(self, scope: Scope, receive: Receive, held: _Held) -> Refusal | None:
        """Receive the body into `held`. Returns the reason to reject the request, if there is one."""
        headers = dict(scope["headers"])
        stated = headers.get(b"content-length", b"0")
        if stated.isdigit() and int(stated) > self.admission.body_bytes:
            return self._too_large()
        packed = _encoding(headers) == b"gzip"
        collect = asyncio.ensure_future(self._collect(receive, held, packed))
        self.admission.unread.add(collect)
        try:
            return await asyncio.wait_for(collect, self.admission.body_seconds)
        except asyncio.CancelledError:
            if not (collect.cancelled() and self.admission.draining):
                raise
            return _DRAINING
        except asyncio.TimeoutError:
            return (
                408,
                f"the body did not arrive within {self.admission.body_seconds:g} s",
                {"connection": "close"},
            )
        finally:
            self.admission.unread.discard(collect)

    def _too_large(self) -> Refusal:
        return 413, f"the body has more than {self.admission.body_bytes:,} bytes", {"connection": "close"}

    async def _collect(self, receive: Receive, held: _Held, packed: bool) -> Refusal | None:
        gunzip = zlib.decompressobj(wbits=31) if packed else None
        chunks, more = [], True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return 400, "the body is incomplete", {}
            more = message.get("more_body", False)
            part = message.get("body", b"")
            while True:
                try:
                    chunk = gunzip.decompress(part, _INFLATED) if gunzip else part
                except zlib.error:
                    return 400, "the body is not gzip, as its content-encoding says", {}
                if gunzip and gunzip.unused_data:
                    return 400, "the body goes on after the end of its gzip", {"connection": "close"}
                held.take(len(chunk))
                if held.size > self.admission.body_bytes:
                    return self._too_large()
                if self.admission.bytes_held > self.admission.bytes_in_flight:
                    return 503, "the server holds too many requests", RETRY_AFTER
                chunks.append(chunk)
                if gunzip is None or len(chunk) < _INFLATED:
                    break
                part = gunzip.unconsumed_tail
                await asyncio.sleep(0)
        if gunzip and not gunzip.eof:
            return 400, "the body is incomplete: its gzip has no end", {}
        held.body = b"".join(chunks)
        return None


class _Held:
    """A request in flight: its body, and the size that has been counted for it."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.body, self.size = b"", 0
        admission.in_flight += 1

    def take(self, size: int) -> None:
        """Count more bytes."""
        self.size += size
        self._admission.bytes_held += size

    def release(self) -> None:
        """End the request."""
        self._admission.bytes_held -= self.size
        self._admission.in_flight -= 1


class _Answer:
    """Sends a response. A large response is counted while it is held, and sent in chunks.

    A response without a content-length, such as the events of a web page, may be endless: a shutdown does not
    wait for it.
    """

    def __init__(self, admission: Admission, send: Send, path: str) -> None:
        self._admission, self._send, self._path = admission, send, path
        self._task: Any = asyncio.current_task()
        self._size, self._refused, self._ended = 0, False, False
        self._endless: asyncio.Task | None = None

    async def send(self, message: Message) -> None:
        """Send a message of the app, or an error if there is no room for the response."""
        if message["type"] == "http.response.start":
            await self._start(message)
        elif not self._refused:
            body, more = message.get("body", b""), message.get("more_body", False)
            for start in range(0, max(1, len(body)), _CHUNK):
                piece = body[start : start + _CHUNK]
                left = more or start + _CHUNK < len(body)
                self._ended = not left
                await self._send({"type": message["type"], "body": piece, "more_body": left})

    async def end(self) -> None:
        """Terminate an endless response."""
        if self._endless and not self._ended:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def release(self) -> None:
        """End the response."""
        self._admission.bytes_held -= self._size
        if self._endless:
            self._admission.endless.discard(self._endless)
            self._admission.in_flight += 1

    async def _start(self, message: Message) -> None:
        stated = dict(message.get("headers", ())).get(b"content-length")
        if stated is None:
            self._endless = self._task
            self._admission.endless.add(self._endless)
            self._admission.in_flight -= 1
        elif int(stated) > _CHUNK:
            self._size = int(stated)
            self._admission.bytes_held += self._size
            if self._admission.bytes_held > self._admission.bytes_in_flight:
                self._refused = True
                why = "the server holds too many answers"
                await reply(self._send, self._path, 503, why, RETRY_AFTER)
                return
        await self._send(message)


def _unpacked(scope: Scope) -> Scope:
    """The scope without the content-encoding header: the body has been decompressed."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-encoding"]
    return {**scope, "headers": headers}


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` function that returns the body first, then continues with the original one."""
    given = False

    async def first_the_body() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return first_the_body


def _has_key(header: bytes, key: str) -> bool:
    kind, _, value = header.partition(b" ")
    if kind.lower() == b"basic":
        try:
            value = base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return False
    elif kind.lower() != b"bearer":
        return False
    return hmac.compare_digest(value.strip(), os.fsencode(key))  # its bytes may be no UTF-8


def _encoding(headers: dict[bytes, bytes]) -> bytes:
    return headers.get(b"content-encoding", b"identity").strip().lower()


async def _refuse(send: Send, receive: Receive, path: str, refusal: Refusal) -> None:
    """Reject a request. If the connection is closed then, the client may still be sending its body."""
    status, _, headers = refusal
    closing = "connection" in headers and status != 408  # the body of a 408 does not come
    await reply(send, path, *refusal, more=closing)
    if closing:  # or else the client would see a broken connection in place of the answer
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_discard(receive), _LINGER)
        await send({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive) -> None:
    while (await receive()).get("more_body", False):
        pass


async def reply(
    send: Send, path: str, status: int, msg: str, headers: dict[str, str], more: bool = False
) -> None:
    """Send an error in PaddleHub's envelope, or in OpenAI's form for a path below `/v1/`.

    Args:
        more: the response is ended later, although it is complete.
    """
    openai = path.startswith(PREFIX)
    content = error_content(status, msg) if openai else {"status": "101", "msg": msg, "results": ""}
    body = json.dumps(content).encode()
    fields = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": more})
