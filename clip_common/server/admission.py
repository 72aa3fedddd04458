"""What stands before every route: the API key, the size of bodies, and a count of what is under way."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Refusal = tuple[int, str, dict[str, str]]
"""Status, message, headers."""
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/health", "/ready")
RETRY_AFTER = {"retry-after": "1"}


@dataclass
class Admission:
    """Who may ask how much, and what is under way.

    Attributes:
        api_key: None lets everybody in. Given as `Authorization: Bearer KEY`, or as the password that a
            browser asks for. `/health` and `/ready` are open.
        body_bytes: of one body.
        bytes_in_flight: of all bodies that are held at a time.
        body_seconds: a client that takes longer to send its body is dropped.
        draining: refuse everything new.
    """

    api_key: str | None
    body_bytes: int
    bytes_in_flight: int
    body_seconds: float
    draining: bool = False
    in_flight: int = 0
    bytes_held: int = 0


class AdmissionMiddleware:
    """ASGI middleware that reads a body whole, within its limits, before anything else sees the request."""

    def __init__(self, app: App, admission: Admission) -> None:
        self.app, self.admission = app, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.admission.in_flight += 1
        held = _Held()
        try:
            refusal = self._refusal(scope) or await self._read(scope, receive, held)
            if refusal:
                await reply(send, *refusal)
            else:
                await self.app(scope, _replay(held.body, receive), send)
        finally:
            self.admission.bytes_held -= held.size
            self.admission.in_flight -= 1

    def _refusal(self, scope: Scope) -> Refusal | None:
        path, headers = scope["path"], dict(scope["headers"])
        if path in OPEN_PATHS:
            return None
        if self.admission.draining:
            return 503, "the server is shutting down", RETRY_AFTER | {"connection": "close"}
        if self.admission.api_key and not _has_key(
            headers.get(b"authorization", b""), self.admission.api_key
        ):
            return 401, "the API key is missing or wrong", {"www-authenticate": 'Basic realm="clip"'}
        return None

    async def _read(self, scope: Scope, receive: Receive, held: _Held) -> Refusal | None:
        """Read the body into `held`; the reason to refuse it, if there is one."""
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if stated.isdigit() and int(stated) > self.admission.body_bytes:
            return self._too_large()
        try:
            return await asyncio.wait_for(self._collect(receive, held), self.admission.body_seconds)
        except asyncio.TimeoutError:
            return (
                408,
                f"the body did not come within {self.admission.body_seconds:g} s",
                {"connection": "close"},
            )

    def _too_large(self) -> Refusal:
        return 413, f"the body has more than {self.admission.body_bytes:,} bytes", {"connection": "close"}

    async def _collect(self, receive: Receive, held: _Held) -> Refusal | None:
        chunks, more = [], True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return 400, "the body is incomplete", {}
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            held.size += len(chunk)
            self.admission.bytes_held += len(chunk)
            if held.size > self.admission.body_bytes:
                return self._too_large()
            if self.admission.bytes_held > self.admission.bytes_in_flight:
                return 503, "the server holds too many requests", RETRY_AFTER
            chunks.append(chunk)
        held.body = b"".join(chunks)
        return None


class _Held:
    """A body, and how much of it has been counted."""

    def __init__(self) -> None:
        self.body, self.size = b"", 0


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then what really comes."""
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
    return hmac.compare_digest(value.strip(), key.encode())


async def reply(send: Send, status: int, msg: str, headers: dict[str, str]) -> None:
    """A refusal in PaddleHub's envelope."""
    body = json.dumps({"status": "101", "msg": msg, "results": ""}).encode()
    fields = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
