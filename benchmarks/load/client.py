"""Clients and their requests."""

from __future__ import annotations

import base64
import io
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import requests
from PIL import Image

_WORDS = (
    "dog cat tree house clock guitar car apple bicycle umbrella diagram bird boat chair flower shoe".split()
)


@dataclass(frozen=True)
class Reply:
    """A reply: HTTP status (0 if there was none), status in the JSON, results or message, seconds."""

    status: int
    code: str
    content: Any
    seconds: float

    @property
    def answered(self) -> bool:
        """Whether there are results. PaddleHub always answers 200: only the status in the JSON counts."""
        return self.status == 200 and self.code == "000"


class Client:
    """A client of one module of a server, for any number of threads; each thread has its own connection."""

    def __init__(self, url: str, module: str) -> None:
        self.url, self.module = url, module
        self._local = threading.local()

    def ask(self, body: Any, timeout: float = 300, raw: bytes | None = None) -> Reply:
        """Send one request, with a body to encode as JSON, or with raw bytes."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        given = (
            {"data": raw, "headers": {"content-type": "application/json"}}
            if raw is not None
            else {"json": body}
        )
        start = time.perf_counter()
        try:
            reply = self._local.session.post(f"{self.url}/predict/{self.module}", timeout=timeout, **given)
            status, code, content = reply.status_code, "", reply.text[:200]
            if "json" in reply.headers.get("content-type", ""):
                code = reply.json()["status"]
                content = reply.json()["results" if code == "000" else "msg"]
        except (requests.RequestException, ValueError, KeyError) as error:
            status, code, content = 0, "", repr(error)
        return Reply(status, code, content, time.perf_counter() - start)

    def server(self) -> list[psutil.Process]:
        """All processes of the server: the one that listens at the port, its parents and their children."""
        port = int(self.url.rsplit(":", 1)[1])
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
                continue
            if connection.laddr.port == port:
                top = psutil.Process(connection.pid)
                while (parent := top.parent()) and any(
                    word in " ".join(parent.cmdline())
                    for word in ("serving", "clip_common serve", "raylet", "ray")
                ):
                    top = parent
                return [top, *top.children(recursive=True)]
        raise SystemExit(f"nothing listens at {self.url}")


def run_clients(count: int, work: Callable[[int, Callable[[], bool]], None], seconds: float) -> float:
    """Run `work(number, go_on)` in `count` threads until the time is over; returns the seconds it took."""
    start = time.perf_counter()
    threads = [
        threading.Thread(target=work, args=(number, lambda: time.perf_counter() - start < seconds))
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def image(seed: int, side: int = 96, kind: str = "JPEG") -> bytes:
    """An image of coloured blocks, different for each seed, as an encoded file."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((side, side * 3 // 4), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def encoded(content: bytes) -> str:
    """An image file in base64, as in the body of a request."""
    return base64.b64encode(content).decode()


def body(seed: int) -> dict[str, Any]:
    """The body of a request; images, labels and task depend on the seed."""
    rng = random.Random(seed)
    words = [f"a {word}" for word in rng.sample(_WORDS, rng.randint(2, 6))]
    images = [
        encoded(image(rng.randrange(10_000), rng.choice((64, 200, 600)))) for _ in range(rng.randint(1, 3))
    ]
    task = seed % 4
    if task == 0:
        return {"images": images, "texts": words}
    if task == 1:
        return {"texts": words, "normalize": False}
    return {"images": images, "labels": words, "top_k": 10}
