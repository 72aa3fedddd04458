"""Downloads that end: resumed, with timeouts, checked by hash, whole."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from functools import partial
from pathlib import Path

import requests
from requests import exceptions
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError, ReadTimeoutError

from ..config import WeightsSource
from ..errors import WeightsError
from ..system.cache import hash_stream
from ..system.log import logger
from ..system.progress import progress_bar
from ..system.threads import beside

_CONNECT_TIMEOUT, _READ_TIMEOUT = 10, 30  # seconds
_HEAD_TIMEOUT = 90  # seconds for the head of an answer, all addresses that it was moved to together
_SPAN, _LEAST = 60, 60 << 10  # a line that brings fewer bytes in so many seconds is as good as dead
_ATTEMPTS = 4  # without progress
_HUGGING_FACE = ("https://huggingface.co", "https://hf-mirror.com")
_MODELSCOPE = "https://modelscope.cn/models"
_CHUNK = 1 << 16  # bytes, at most, that are written at once


class _NotFoundError(Exception):
    """The server has no such file, or keeps it to itself: another address may not."""


class _TooSlowError(requests.Timeout):
    """The server sends a little now and then, and might for ever."""


def addresses(source: WeightsSource, mirror: str | None = None, flat: str | None = None) -> list[str]:
    """Where to look for a file, in order: below a mirror (OpenAI's layout, then flat), else where it is
    published.

    Args:
        source: the file's record; its hash is known.
        mirror: left out, that of CLIP_HUB_MIRROR.
        flat: the file's name in a flat mirror; left out, its own.
    """
    mirror = mirror or os.environ.get("CLIP_HUB_MIRROR")
    if mirror:
        return [source.address(mirror), f"{mirror.rstrip('/')}/{flat or source.file}"]
    return published_addresses(source)


def published_addresses(source: WeightsSource) -> list[str]:
    """Where a file is published: at its authors', on Hugging Face (or in its place where HF_ENDPOINT says),
    on that site's mirror in China, and on ModelScope, as far as it is there."""
    found = [source.url] if source.url else []
    if source.huggingface:
        chosen = os.environ.get("HF_ENDPOINT")
        for endpoint in [chosen.rstrip("/")] if chosen else _HUGGING_FACE:
            found.append(f"{endpoint}/{source.huggingface}/resolve/main/{source.file}")
    if source.modelscope:
        found.append(f"{_MODELSCOPE}/{source.modelscope}/resolve/master/{source.file}")
    return found


def download(urls: Sequence[str], part: Path, sha256: str) -> None:
    """Fetch a file to `part`, where an earlier part of it is resumed; only whole, right bytes stay.

    Addresses are tried in order: the next one where one does not answer, fails, or gives another file.
    Two processes must not fetch the same file at once; see `weights.fetch`.

    Raises:
        WeightsError: the file cannot be had, or is not the one asked for.
        OSError: the folder cannot be written.
    """
    failures = []
    for url in urls:
        try:
            return _download_from(url, part, sha256)
        except WeightsError as error:
            failures.append(str(error))
    raise WeightsError("; ".join(failures))


def _download_from(url: str, part: Path, sha256: str) -> None:
    """Fetch a file from one address."""
    failures, reached = 0, _size(part)
    while True:
        try:
            _fetch(url, part)
            break
        except _NotFoundError as error:
            raise WeightsError(f"no such file at {url} ({error})") from error
        except requests.RequestException as error:
            # A bad line that gets somewhere each time gets there in the end.
            failures = failures + 1 if _size(part) <= reached else 1
            reached = max(reached, _size(part))
            if failures == _ATTEMPTS or not _worth_another_try(error):
                raise WeightsError(f"cannot download {url}: {_reason(error)}") from error
            logger.warning("download of %s interrupted (%s); resuming", part.stem, _reason(error))
            time.sleep(2 ** (failures - 1))
    with part.open("rb") as file:
        found = hash_stream(file)
    if found != sha256:
        size = _size(part)
        part.unlink()
        raise WeightsError(
            f"the file downloaded from {url} ({size:,} bytes) has sha256 {found}, expected {sha256}: "
            "it was removed; try again, or another mirror"
        )


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _fetch(url: str, part: Path) -> None:
    start = _size(part)
    headers = {"Range": f"bytes={start}-"} if start else {}
    headers["Accept-Encoding"] = "identity"  # so that lengths are those of the file
    with _answer(url, headers) as response:
        if response.status_code in (403, 404, 410):  # some stores answer 403 for what they do not have
            raise _NotFoundError(f"the server answered {response.status_code}")
        if response.status_code == 416:  # the part is already as long as the file, or longer
            return
        response.raise_for_status()
        resumed = response.status_code == 206
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            part.open("ab" if resumed else "wb") as file,
            progress_bar(desc=part.stem, total=total, initial=start, unit="B", unit_scale=True) as bar,
        ):
            for chunk in _chunks(response):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise requests.ConnectionError(f"ended at {part.stat().st_size} of {total} bytes")


def _answer(url: str, headers: dict[str, str]) -> requests.Response:
    """An answer whose head has come. The library's limits are of each byte's wait."""
    timeout = (_CONNECT_TIMEOUT, _READ_TIMEOUT)
    coming = beside(partial(requests.get, url, headers=headers, stream=True, timeout=timeout))
    if not futures.wait({coming}, _HEAD_TIMEOUT).done:
        raise _TooSlowError(f"the head of its answer did not come in {_HEAD_TIMEOUT} s")
    return coming.result()


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """A body as it comes."""
    end, left = time.monotonic() + _SPAN, _LEAST
    try:
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            yield chunk
            left -= len(chunk)
            if time.monotonic() > end:
                if left > 0:
                    raise _TooSlowError(f"less than {_LEAST >> 10} KiB came in {_SPAN} s")
                end, left = time.monotonic() + _SPAN, _LEAST
    except HTTPError as error:
        raise requests.ConnectionError(error) from error


def _worth_another_try(error: requests.RequestException) -> bool:
    """Not when nothing answered at all: users behind a closed network should not wait for that twice."""
    if isinstance(error, requests.HTTPError):
        return error.response is not None and error.response.status_code >= 500
    final = (exceptions.ConnectTimeout, exceptions.TooManyRedirects, exceptions.SSLError, ValueError)
    return not (_is_unreachable(error) or isinstance(error, (_TooSlowError, *final)))


def _is_unreachable(error: requests.RequestException) -> bool:
    """Whether nothing answers at the address, or it has no such host."""
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", None), NewConnectionError)


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, _TooSlowError):
        return str(error)
    if isinstance(error, requests.Timeout) or _is_caused_by(error, ReadTimeoutError):
        return f"no answer in {_CONNECT_TIMEOUT} s, or a silence of {_READ_TIMEOUT} s"
    if isinstance(error, exceptions.ProxyError):
        return "the proxy of HTTPS_PROXY or HTTP_PROXY cannot be reached"
    if _is_unreachable(error):
        return "the address cannot be reached"
    if isinstance(error, (exceptions.MissingSchema, exceptions.InvalidSchema)):
        return "an address begins with https:// or http://"
    if isinstance(error, exceptions.TooManyRedirects):
        return "the server sends from one address to the next without end"
    if isinstance(error, exceptions.ChunkedEncodingError) or _is_caused_by(error, ProtocolError):
        return "the server closed the connection"
    return str(error)


def _is_caused_by(error: requests.RequestException, kind: type[Exception]) -> bool:
    """Whether requests wrapped an error of urllib3's."""
    return bool(error.args) and isinstance(error.args[0], kind)
