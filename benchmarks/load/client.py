"""Clients, and the requests that they make."""

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
    """What came back: status (0 where nothing did), PaddleHub's own, results or message, seconds."""

    status: int
    code: str
    content: Any
    seconds: float

    @property
    def answered(self) -> bool:
        """Whether there are results. PaddleHub's server says 200 to everything, so its own status counts."""
        return self.status == 200 and self.code == "000"


class Client:
    """One server's module, asked from any number of threads; each thread keeps its connection."""

    def __init__(self, url: str, module: str) -> None:
        self.url, self.module = url, module
        self._local = threading.local()

    def ask(self, body: Any, timeout: float = 300, raw: bytes | None = None) -> Reply:
        """Ask once, with a body as JSON, or with its bytes."""
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
        """The server's processes: who listens at the port, with all of its session."""
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
    """So many threads of `work(number, go_on)` until the time is over; returns how long it took."""
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
    """An image of its own: coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((side, side * 3 // 4), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def encoded(content: bytes) -> str:
    """An image as a body carries it."""
    return base64.b64encode(content).decode()


def body(seed: int) -> dict[str, Any]:
    """A request of its own: images, labels and task differ with the seed."""
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
