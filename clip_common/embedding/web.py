"""Read images from web servers politely: robots.txt, few connections per server, pauses, size limits."""

from __future__ import annotations

import contextlib
import errno
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from email.utils import parsedate_to_datetime
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import TypeVar
from urllib.parse import urldefrag, urljoin, urlsplit
from urllib.robotparser import RobotFileParser

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, NewConnectionError

from ..errors import ImageError
from ..system import prefetch
from ..system.addresses import MOST_BYTES, WEB, scheme_of, too_large
from ..system.secrets import without_secrets
from ..system.threads import run_in_thread
from ..version import __version__

Made = TypeVar("Made")

_AGENT = "clip-hub"
_CONNECT_TIMEOUT, _READ_TIMEOUT = 10, 15  # seconds
_ALLOWED = 60.0  # seconds for an image, all attempts and waits between them together
_ATTEMPTS = 4
_CONNECTIONS = 4  # to one server
_REDIRECTS = 5
_GIVEN_UP_AFTER = 5  # consecutive failures of one server
_GIVEN_UP_FOR = 600.0  # seconds
_LOOK = 0.5  # seconds between two checks whether the image is still needed
_LONGEST_PAUSE = 30.0  # seconds; a longer crawl-delay in a robots.txt is shortened to this
_ROBOTS_BYTES = 500 << 10  # size limit of a robots.txt, the least that RFC 9309 allows
_BUSY = (429, 500, 502, 503, 504)
_ANYBODY = "User-agent: *"
_NO_ADDRESS = "is not a valid address"
_MOVED = (301, 302, 303, 307, 308)


class _AnswerError(OSError):
    """The server answered with a status that another attempt will not change."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(errno.EIO, reason)
        self.status = status


class _TryAgainError(OSError):
    """A failure that may be temporary. `wait`: seconds that the server asks to wait, if it says so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(errno.EAGAIN, reason)
        self.wait = wait


def read(address: str) -> bytes:
    """Read the bytes of an image.

    Raises:
        ImageError: the image is too large, or the address is invalid.
        OSError: the image cannot be read now.
    """
    return _client().read(address)


@cache
def _client() -> _Client:
    return _Client()


class _Allowance:
    """The time limit of one image; time spent waiting for its turn is not counted."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    @contextlib.contextmanager
    def running(self) -> Iterator[float]:
        """Count the time while the context is active; yields the time at which it must end."""
        begun = time.monotonic()
        try:
            yield begun + self.left
        finally:
            self.left -= time.monotonic() - begun


class _Server:
    """The state of a server, shared by all threads that read from it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.connections = threading.BoundedSemaphore(_CONNECTIONS)
        self.rules_lock = threading.Lock()
        self.rules: RobotFileParser | None = None
        self.pause: float = 0
        self._lock = threading.Lock()
        self._ready_at = 0.0
        self._failures = 0
        self._given_up_until = 0.0
        self._last_reason = ""

    def hold_off(self, seconds: float) -> None:
        """Delay the next request by some seconds."""
        with self._lock:
            self._ready_at = max(self._ready_at, time.monotonic() + seconds)

    def wait_for_turn(self) -> None:
        """Wait until the next request may be sent to the server.

        Raises:
            OSError: the server has failed too often and is not asked for a while.
        """
        while True:
            with self._lock:
                now = time.monotonic()
                if now < self._given_up_until:
                    raise OSError(
                        errno.EHOSTUNREACH,
                        f"{self.name} is not asked for a while, after {_GIVEN_UP_AFTER} failures in a row; "
                        f"the last: {self._last_reason}",
                    )
                delay = self._ready_at - now
                if delay <= 0:
                    self._ready_at = now + self.pause
                    return
            prefetch.sleep(min(delay, 1.0))

    def succeeded(self) -> None:
        """Record a successful request."""
        with self._lock:
            self._failures = 0

    def failed(self, reason: str) -> None:
        """Record a failed request."""
        with self._lock:
            self._failures += 1
            if self._failures >= _GIVEN_UP_AFTER:
                self._failures, self._last_reason = 0, reason
                self._given_up_until = time.monotonic() + _GIVEN_UP_FOR


class _Client:
    """Reads addresses. Thread-safe."""

    def __init__(self) -> None:
        self._session = requests.Session()
        self._session.headers.update(
            {"User-Agent": f"{_AGENT}/{__version__}", "Accept": "image/*", "Accept-Encoding": "identity"}
        )
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in WEB:
            self._session.mount(f"{scheme}://", HTTPAdapter(pool_connections=64, pool_maxsize=_CONNECTIONS))
        self._servers: dict[str, _Server] = {}
        self._servers_lock = threading.Lock()

    def read(self, address: str) -> bytes:
        """See `read`."""
        allowance = _Allowance(_ALLOWED)
        try:
            return self._follow(address, MOST_BYTES, allowance, ask_robots=True)
        except ImageError as error:
            raise ImageError(f"{without_secrets(address)}: {error}") from None

    def _follow(self, address: str, most: int, allowance: _Allowance, ask_robots: bool) -> bytes:
        """Read the content of an address, following redirects."""
        for _ in range(_REDIRECTS + 1):
            server = self._server(address)
            if ask_robots:
                self._require_allowed(server, address)
            content = self._ask(server, address, most, allowance)
            if isinstance(content, bytes):
                return content
            address = urljoin(address, content)
            if scheme_of(address) not in WEB:
                raise OSError(errno.EPROTO, "it redirects to an address that is not http:// or https://")
        raise OSError(errno.ELOOP, f"it redirects more than {_REDIRECTS} times")

    def _server(self, address: str) -> _Server:
        try:
            parts = urlsplit(address)
        except ValueError:
            raise ImageError(_NO_ADDRESS) from None
        if not parts.hostname:
            raise ImageError(_NO_ADDRESS)
        name = f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}"
        with self._servers_lock:
            if name not in self._servers:
                self._servers[name] = _Server(name)
            return self._servers[name]

    # --- robots.txt -----------------------------------------------------------------------------------

    def _require_allowed(self, server: _Server, address: str) -> None:
        """Check that robots.txt allows an address. It is read once per server, as RFC 9309 says: if it does
        not exist or access is denied, everything is allowed; if the server fails, nothing is.

        Raises:
            OSError: robots.txt does not allow the address, or cannot be read.
        """
        with server.rules_lock:
            if server.rules is None:
                server.rules = self._rules(server)
                asked = server.rules.crawl_delay(_AGENT)
                server.pause = min(int(asked or 0), _LONGEST_PAUSE)
        if not server.rules.can_fetch(_AGENT, urldefrag(address).url):
            raise OSError(errno.EACCES, f"{server.name}/robots.txt does not allow it")

    def _rules(self, server: _Server) -> RobotFileParser:
        try:
            allowance = _Allowance(_ALLOWED)
            content = self._follow(f"{server.name}/robots.txt", _ROBOTS_BYTES, allowance, ask_robots=False)
        except _AnswerError:
            content = b""
        except ImageError as error:  # too long
            raise OSError(errno.EIO, f"its robots.txt {error}") from None
        except OSError as error:
            raise OSError(errno.EIO, f"its robots.txt cannot be read: {error.strerror}") from None
        lines = content.decode("utf-8", "replace").splitlines()
        rules = _parsed(lines)
        return rules or _parsed([line for line in lines if _parsed([_ANYBODY, line])]) or RobotFileParser()

    # --- one address ----------------------------------------------------------------------------------

    def _ask(self, server: _Server, address: str, most: int, allowance: _Allowance) -> bytes | str:
        """Return the content of an address, or the address that it redirects to.

        Temporary failures are retried, with increasing waits.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            server.wait_for_turn()
            try:
                with server.connections, allowance.running() as deadline:
                    content = _in_time(lambda: self._answer(address, most, deadline), deadline)
            except _TryAgainError as error:
                wait = (
                    error.wait if error.wait is not None else 2 ** (attempt - 1) * (0.5 + random.random() / 2)
                )
                if attempt == _ATTEMPTS or wait >= allowance.left:
                    asked = f", and asks to wait {wait:.0f} s" if error.wait else ""
                    server.failed(str(error.strerror))
                    raise OSError(errno.EIO, f"{error.strerror}{asked}") from None
                if error.wait is not None:
                    server.hold_off(wait)
                with allowance.running():
                    prefetch.sleep(wait)
            except (_AnswerError, ImageError):
                server.succeeded()
                raise
            except prefetch.UnreadError:
                raise
            except OSError as error:
                server.failed(str(error.strerror))
                raise
            else:
                server.succeeded()
                return content
        raise AssertionError("the last attempt returns or raises")

    def _answer(self, address: str, most: int, deadline: float) -> bytes | str:
        """Send one request; returns the content, or the address that it redirects to."""
        try:
            with self._session.get(
                address, stream=True, allow_redirects=False, timeout=(_CONNECT_TIMEOUT, _READ_TIMEOUT)
            ) as response:
                status = response.status_code
                if status in _MOVED and response.headers.get("Location"):
                    return response.headers["Location"]
                if status in _BUSY:
                    raise _TryAgainError(f"the server answers {status}", _retry_after(response))
                if status in (404, 410):
                    raise _AnswerError(status, f"the server answers {status}: it is gone")
                if status != 200:
                    raise _AnswerError(status, f"the server answers {status}")
                return _content(response, most, deadline)
        except ImageError:
            raise
        except ValueError:  # this address, or the one that it redirects to, is invalid
            raise ImageError(_NO_ADDRESS) from None
        except (requests.RequestException, HTTPError) as error:
            raise _in_words(error) from None


def _parsed(lines: list[str]) -> RobotFileParser | None:
    """The rules of a robots.txt; None if a line has an invalid number or address."""
    rules = RobotFileParser()
    try:
        rules.parse(lines)
    except ValueError:
        return None
    return rules


def _in_time(answer: Callable[[], Made], deadline: float) -> Made:
    """Run `answer` in a thread; raises an error at the deadline, even if it is still running.

    The libraries limit only the wait for each byte, so a server could send its headers forever.
    """
    coming = run_in_thread(answer)
    while not coming.done():
        prefetch.require_reader()
        left = deadline - time.monotonic()
        if left <= 0:
            raise _too_slow()
        futures.wait({coming}, min(left, _LOOK))
    try:
        return coming.result()
    finally:
        del coming  # breaks a reference cycle of a raised error, which would keep the image in memory


def _too_slow() -> OSError:
    return OSError(errno.ETIMEDOUT, f"it did not arrive completely in {_ALLOWED:.0f} s")


def _content(response: requests.Response, most: int, deadline: float) -> bytes:
    """Read the body in chunks, so that a slow server cannot exceed the deadline."""
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > most:
        raise ImageError(too_large(int(length), most))
    content = bytearray()
    while chunk := response.raw.read1(1 << 16):
        content += chunk
        if len(content) > most:
            raise ImageError(too_large(len(content), most))
        if time.monotonic() > deadline:
            raise _too_slow()
    if length.isdecimal() and len(content) < int(length):
        raise _TryAgainError("the connection broke")
    return bytes(content)


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that a server asks to wait (Retry-After is a number or a date); None if it does not."""
    given = response.headers.get("Retry-After", "").strip()
    if given.isdecimal():
        return float(given)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    return None


def _in_words(error: Exception) -> OSError:
    """The error to report. The libraries' messages contain the address with its secrets."""
    kinds = requests.exceptions
    if isinstance(error, kinds.SSLError):
        return OSError(errno.EPROTO, "its certificate is not valid, or it does not speak TLS")
    if isinstance(error, kinds.ProxyError):
        return OSError(errno.EHOSTUNREACH, "the proxy cannot be reached")
    if isinstance(error, kinds.ConnectTimeout):
        return OSError(errno.ETIMEDOUT, f"no connection in {_CONNECT_TIMEOUT} s")
    cause = error.args[0] if error.args else None
    if isinstance(getattr(cause, "reason", None), NewConnectionError):
        return OSError(errno.EHOSTUNREACH, "the server cannot be reached")
    if isinstance(error, kinds.Timeout) or "timed out" in str(cause):
        return _TryAgainError(f"no answer in {_READ_TIMEOUT} s")
    return _TryAgainError("the connection broke")
