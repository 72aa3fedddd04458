"""Downloads of weights: with timeouts, resumed after interruptions, checked by hash."""

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
from ..system.threads import run_in_thread

_CONNECT_TIMEOUT, _READ_TIMEOUT = 10, 30  # seconds
_HEAD_TIMEOUT = 90  # seconds until the response headers, all redirects included
_SPAN, _LEAST = 60, 60 << 10  # seconds, bytes: fewer bytes in this time count as a dead connection
_ATTEMPTS = 4  # without progress
_HUGGING_FACE = ("https://huggingface.co", "https://hf-mirror.com")
_MODELSCOPE = "https://modelscope.cn/models"
_CHUNK = 1 << 16  # bytes written at once, at most


class _NotFoundError(Exception):
    """The server does not have the file or does not give access to it; another address may."""


class _TooSlowError(requests.Timeout):
    """The server sends too slowly to ever finish."""


def addresses(source: WeightsSource, mirror: str | None = None, flat: str | None = None) -> list[str]:
    """The URLs to try for a file, in order: on the mirror if there is one, else where it is published.

    Args:
        source: the file's record.
        mirror: URL of a mirror, in OpenAI's layout or flat (both are tried); default CLIP_HUB_MIRROR.
        flat: the file's name on a flat mirror; default the file's own name.
    """
    mirror = mirror or os.environ.get("CLIP_HUB_MIRROR")
    if mirror:
        return [source.address(mirror), f"{mirror.rstrip('/')}/{flat or source.file}"]
    return published_addresses(source)


def published_addresses(source: WeightsSource) -> list[str]:
    """The URLs where a file is published: its authors' site, Hugging Face and its mirror in China (or only
    HF_ENDPOINT, if that is set), and ModelScope; sites that do not have the file are left out."""
    found = [source.url] if source.url else []
    if source.huggingface:
        chosen = os.environ.get("HF_ENDPOINT")
        for endpoint in [chosen.rstrip("/")] if chosen else _HUGGING_FACE:
            found.append(f"{endpoint}/{source.huggingface}/resolve/main/{source.file}")
    if source.modelscope:
        found.append(f"{_MODELSCOPE}/{source.modelscope}/resolve/master/{source.file}")
    return found


def download(urls: Sequence[str], part: Path, sha256: str) -> None:
    """Download a file to `part` and check its hash. An incomplete `part` is resumed.

    URLs are tried in order, until one gives the right file; a wrong file is removed. Two processes must not
    download the same file at once; see `weights.locate.fetch`.

    Raises:
        WeightsError: no URL gives the file, or what it gives has another hash.
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
    """Download a file from one URL; see `download`."""
    failures, reached = 0, _size(part)
    while True:
        try:
            _fetch(url, part)
            break
        except _NotFoundError as error:
            raise WeightsError(f"no such file at {url} ({error})") from error
        except requests.RequestException as error:
            # Attempts are only counted while nothing new arrives: a bad connection still finishes.
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
    headers["Accept-Encoding"] = "identity"  # so that Content-Length is the file's size
    with _answer(url, headers) as response:
        if response.status_code in (403, 404, 410):  # some stores answer 403 for a missing file
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
    """Send a GET request and return the response once its headers have arrived.

    The timeouts of requests limit the wait for each byte, not for the headers as a whole.
    """
    timeout = (_CONNECT_TIMEOUT, _READ_TIMEOUT)
    coming = run_in_thread(partial(requests.get, url, headers=headers, stream=True, timeout=timeout))
    if not futures.wait({coming}, _HEAD_TIMEOUT).done:
        raise _TooSlowError(f"the headers of its answer did not arrive in {_HEAD_TIMEOUT} s")
    return coming.result()


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """The body in chunks, as they arrive; raises an error if they arrive too slowly."""
    end, left = time.monotonic() + _SPAN, _LEAST
    try:
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            yield chunk
            left -= len(chunk)
            if time.monotonic() > end:
                if left > 0:
                    raise _TooSlowError(f"less than {_LEAST >> 10} KiB arrived in {_SPAN} s")
                end, left = time.monotonic() + _SPAN, _LEAST
    except HTTPError as error:
        raise requests.ConnectionError(error) from error


def _worth_another_try(error: requests.RequestException) -> bool:
    """Whether to retry. Not if nothing answered at all: users without internet should not wait twice."""
    if isinstance(error, requests.HTTPError):
        return error.response is not None and error.response.status_code >= 500
    final = (exceptions.ConnectTimeout, exceptions.TooManyRedirects, exceptions.SSLError, ValueError)
    return not (_is_unreachable(error) or isinstance(error, (_TooSlowError, *final)))


def _is_unreachable(error: requests.RequestException) -> bool:
    """Whether the connection failed: nothing answers at the address, or the host is unknown."""
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", None), NewConnectionError)


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, _TooSlowError):
        return str(error)
    if isinstance(error, requests.Timeout) or _is_caused_by(error, ReadTimeoutError):
        return f"no connection in {_CONNECT_TIMEOUT} s, or no data for {_READ_TIMEOUT} s"
    if isinstance(error, exceptions.ProxyError):
        return "the proxy of HTTPS_PROXY or HTTP_PROXY cannot be reached"
    if _is_unreachable(error):
        return "the address cannot be reached"
    if isinstance(error, (exceptions.MissingSchema, exceptions.InvalidSchema)):
        return "an address begins with https:// or http://"
    if isinstance(error, exceptions.TooManyRedirects):
        return "the server redirects without end"
    if isinstance(error, exceptions.ChunkedEncodingError) or _is_caused_by(error, ProtocolError):
        return "the server closed the connection"
    return str(error)


def _is_caused_by(error: requests.RequestException, kind: type[Exception]) -> bool:
    """Whether requests wrapped this kind of urllib3 error."""
    return bool(error.args) and isinstance(error.args[0], kind)
