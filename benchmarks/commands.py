"""Times that a user waits for a command: start, first call, search; and the answers of a server.

These cells have no peers. Each command runs in its own process, with a cache for this benchmark.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from socket import socket

import requests

from clip_common.config import PRETRAINED
from clip_common.predictor import Predictor
from clip_common.weights.weights_file import write_safetensors
from tests.parity import seeded

from .load.client import Client, encoded, image

Cell = dict[str, Callable[[], object]]
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
_PHOTO = str(EXAMPLES / "photo_cat.jpg")
_CLIENTS, _REQUESTS = 32, 128
_LABELS = ["a dog", "a cat", "a tree"]
_LONGEST_START = 300  # seconds to wait for a server


def command_cells(folder: Path) -> dict[str, Cell]:
    """Cells of commands: start, first call and search. The store and index for them are made now."""
    weights = folder / "clip_vit_b32.safetensors"
    write_safetensors(seeded.state(PRETRAINED["clip_vit_b32"].config), weights, {})
    vit = (
        "classify",
        "--module",
        "clip_vit_b32",
        "--weights",
        str(weights),
        _PHOTO,
        "--labels",
        "a cat,a dog",
    )
    store, index = str(folder / "store"), str(folder / "index")
    cache = folder / "cache"
    _clip_hub(cache, "embed", str(EXAMPLES), "--output", store)
    _clip_hub(cache, "index", store, "--index", index)
    return {
        "ViT-B/32, clip-hub classify": {"ours": partial(_clip_hub, cache, *vit)},
        "clip_mini, clip-hub classify": {"ours": partial(_clip_hub, cache, "classify", _PHOTO)},
        "clip_mini, clip-hub search": {
            "ours": partial(_clip_hub, cache, "search", "a cat", "--index", index)
        },
        "ViT-B/32, first call": {"ours": partial(_first_call, folder, *vit)},
    }


def _clip_hub(cache: Path, *words: str) -> None:
    command = [sys.executable, "-m", "clip_common", *words, "--quiet"]
    environment = {**os.environ, "CLIP_HUB_CACHE": str(cache)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def _first_call(folder: Path, *words: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        _clip_hub(Path(cache), *words)


@contextmanager
def server_cells(folder: Path) -> Iterator[dict[str, Cell]]:
    """Cells of a server and of one process with the same images; none if Ray is not installed."""
    if not importlib.util.find_spec("ray"):
        yield {}
        return
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "clip_common", "serve", "clip_mini", "--port", url.rpartition(":")[2]]
    environment = {**os.environ, "CLIP_HUB_CACHE": str(folder / "cache")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"{url}/ready", process)
        contents = [image(seed, 400) for seed in range(_REQUESTS)]
        predictor = Predictor("clip_mini")
        name = f"clip_mini, {_REQUESTS} images"
        yield {
            f"{name}, server, {_CLIENTS} clients": {
                "ours": partial(_ask, Client(url, "clip_mini"), contents)
            },
            f"{name}, one process": {"ours": partial(predictor.classify, images=contents, labels=_LABELS)},
        }
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _LONGEST_START
    while time.monotonic() < end and process.poll() is None:
        try:
            if requests.get(url, timeout=5).status_code == 200:
                return
        except requests.RequestException:
            pass
        time.sleep(0.5)
    raise SystemExit(f"the server does not answer at {url}")


def _ask(client: Client, contents: list[bytes]) -> None:
    bodies = [{"images": [encoded(content)], "labels": _LABELS} for content in contents]
    with ThreadPoolExecutor(_CLIENTS) as pool:
        if not all(reply.answered for reply in pool.map(client.ask, bodies)):
            raise SystemExit("the server refused a request")
