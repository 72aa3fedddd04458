"""Connections of the server: one that does not get on is closed.

uvicorn waits for a request's headers, and for a client to read its answer, as long as the client likes; a few
thousand clients that send nothing would keep everybody else out, and some that read nothing hold all memory.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 10.0
READING_SECONDS = 60.0


class TimeoutProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose request headers must have come `HEADER_SECONDS` after the first byte is awaited, and
    whose client may keep a connection's answers waiting for `READING_SECONDS`, all in all.
    """

    _due: asyncio.TimerHandle | None = None
    _paused: float | None = None
    _patience: float = READING_SECONDS
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request is awaited."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Part of a request."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited."""
        super().connection_lost(exc)
        self._forget()
        self._stop_waiting()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._paused = self.loop.time()
        self._unread = self.loop.call_later(self._patience, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read most of what was waiting."""
        super().resume_writing()
        self._stop_waiting()

    def on_response_complete(self) -> None:
        """The next answer has all the time again, unless this one is still to be read."""
        super().on_response_complete()
        if self._unread is None:
            self._patience = READING_SECONDS

    def _watch(self) -> None:
        """Start the clock where headers are awaited, once for each request; stop it where they have come."""
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
