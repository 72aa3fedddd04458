"""Timeouts for slow clients, and limits on headers, which uvicorn does not have.

uvicorn waits without limit for the headers of a request, and for a client to read its response. A few
thousand clients that send nothing could block all others, and clients that read nothing could fill the
memory. So could headers without an end, or many requests sent at once, which uvicorn parses before the first
is answered.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 10.0
READING_SECONDS = 60.0
HEAD_BYTES = 64 << 10
PIPELINED = 100
_A_CHUNK = 8  # bytes around each byte of a body, if every chunk of it has one byte


class TimeoutProtocol(HttpToolsProtocol):
    """HTTP/1.1 with timeouts and limits.

    The headers of a request must arrive within `HEADER_SECONDS`, and may have `HEAD_BYTES`, as may the
    headers after its body. While a client reads a response, sending may be blocked for at most
    `READING_SECONDS` in total. At most `PIPELINED` requests of a connection wait for the one before them.
    """

    _head = 0  # bytes received of the current request that are not its body
    _due: asyncio.TimerHandle | None = None
    _paused: float | None = None
    _patience: float = READING_SECONDS
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection opens: wait for its first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A part of a request has arrived."""
        self._head += len(data)
        super().data_received(data)
        self._watch()
        if self._head > HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """A request begins: it is answered, or waits for those before it."""
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED:
            raise ValueError("too many requests at once")  # uvicorn answers with 400 and hangs up

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived, with what separates its chunks."""
        self._head = max(0, self._head - (1 + _A_CHUNK) * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._head = 0
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: stop all timers."""
        super().connection_lost(exc)
        self._forget()
        self._stop_waiting()

    def pause_writing(self) -> None:
        """The client reads more slowly than we send."""
        super().pause_writing()
        self._paused = self.loop.time()
        self._unread = self.loop.call_later(self._patience, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read most of the buffered data."""
        super().resume_writing()
        self._stop_waiting()

    def on_response_complete(self) -> None:
        """Reset the time for the next response, unless this one is still being read."""
        super().on_response_complete()
        if self._unread is None:
            self._patience = READING_SECONDS

    def _refuse_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.send_400_response(f"the headers of the request have more than {HEAD_BYTES:,} bytes")
        else:  # another response is being sent
            self.transport.abort()

    def _watch(self) -> None:
        """Start the header timer when a request is awaited, and stop it when its headers have arrived."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._due is None:
            self._due = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _stop_waiting(self) -> None:
        if self._unread is not None and self._paused is not None:
            self._unread.cancel()
            self._unread = None
            self._patience -= self.loop.time() - self._paused
