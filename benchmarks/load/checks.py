"""The load tests. Each returns figures, with "passed" for whether they meet their targets."""

from __future__ import annotations

import argparse
import io
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from clip_common.config import pretrained
from clip_common.predictor import Predictor
from clip_common.server.answering import answer
from clip_common.server.limits import Limits
from clip_common.server.request import RequestBody

from .client import Client, body, encoded, image, run_clients

_TOLERANCE = 1e-5
_DISTINCT = 500  # different requests with known answers
_MOST_AT_ONCE = 400  # requests in flight during overload
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "ICO", "TGA", "JPEG2000", "AVIF")


def answers(client: Client, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every answer under load equals the answer to a single request; none is lost or swapped."""
    predictor = Predictor(pretrained(client.module), arguments.weights)
    bodies = [body(seed) for seed in range(_DISTINCT)]
    expected = [answer(predictor, [RequestBody.parse(item).work(Limits())])[0] for item in bodies]
    worst, counts = [0.0], Counter[str]()

    def work(number: int, go_on: Callable[[], bool]) -> None:
        rng = random.Random(number)
        while go_on():
            which = rng.randrange(_DISTINCT)
            reply = client.ask(bodies[which])
            counts["answered" if reply.answered else f"{reply.status}: {str(reply.content)[:80]}"] += 1
            if reply.answered:
                worst.append(_distance(reply.content, expected[which]))

    seconds = run_clients(arguments.clients, work, arguments.seconds)
    return {
        "requests": sum(counts.values()),
        "per second": round(sum(counts.values()) / seconds, 1),
        "outcomes": dict(counts),
        "largest difference": max(worst),
        "passed": set(counts) == {"answered"} and max(worst) <= _TOLERANCE,
    }


def _distance(found: Any, expected: Any) -> float:
    """The largest difference between two answers of the same kind; infinite if their labels differ."""
    if isinstance(expected, dict):
        numbers = [(found[key], expected[key]) for key in ("images", "texts") if expected[key] is not None]
        scale = max(float(np.abs(np.array(wanted)).max()) for _, wanted in numbers)
        return max(float(np.abs(np.array(got) - np.array(wanted)).max()) for got, wanted in numbers) / max(
            1.0, scale
        )
    by_label = [{item["label"]: item["score"] for item in image} for image in found]
    wanted_by_label = [{item["label"]: item["score"] for item in image} for image in expected]
    if [set(scores) for scores in by_label] != [set(scores) for scores in wanted_by_label]:
        return float("inf")
    pairs = zip(by_label, wanted_by_label, strict=True)
    return max(abs(got[label] - wanted[label]) for got, wanted in pairs for label in wanted)


def rate(client: Client, arguments: argparse.Namespace) -> dict[str, Any]:
    """Images per second of the server and of the model in this process, taking turns; medians and ratio."""
    predictor = Predictor(pretrained(client.module), arguments.weights)
    labels = ["a dog", "a cat", "a tree"]
    contents = [image(seed, 400) for seed in range(64)]
    bodies = [{"images": [encoded(content)], "labels": labels} for content in contents]
    predictor.classify(images=contents, labels=labels)
    client.ask(bodies[0])
    offline, served = [], []
    for _ in range(3):
        start = time.perf_counter()
        predictor.classify(images=contents, labels=labels)
        offline.append(len(contents) / (time.perf_counter() - start))
        done: list[bool] = []

        def work(number: int, go_on: Callable[[], bool], done: list[bool] = done) -> None:
            turn = number
            while go_on():
                done.append(client.ask(bodies[turn % len(bodies)]).answered)
                turn += arguments.clients

        seconds = run_clients(arguments.clients, work, arguments.seconds / 3)
        served.append(sum(done) / seconds)
    share = statistics.median(served) / statistics.median(offline)
    return {
        "served per second": round(statistics.median(served), 2),
        "offline per second": round(statistics.median(offline), 2),
        "share": round(share, 3),
        "passed": share >= 0.8,
    }


def overload(client: Client, arguments: argparse.Namespace) -> dict[str, Any]:
    """Ten times more requests than the server can serve, evenly spaced: times of refusals and of recovery."""
    alone = statistics.median(client.ask(body(2)).seconds for _ in range(5))
    served = _served_per_second(client, arguments.clients)
    gap = 1 / (10 * served)
    start = time.perf_counter()
    with ThreadPoolExecutor(_MOST_AT_ONCE) as pool:
        coming = []
        for number in range(int(arguments.seconds / gap)):
            time.sleep(max(0.0, start + number * gap - time.perf_counter()))
            coming.append(pool.submit(client.ask, body(number)))
        offered = len(coming) / (time.perf_counter() - start)
        replies = [future.result() for future in coming]
    end = time.perf_counter()
    while client.ask(body(2)).seconds > 3 * alone + 0.2 and time.perf_counter() - end < 60:
        time.sleep(0.1)
    back = time.perf_counter() - end
    refused = [reply.seconds for reply in replies if reply.status == 503]
    answered = [reply.seconds for reply in replies if reply.answered]
    return {
        "served per second before": round(served, 1),
        "offered per second": round(offered, 1),
        "statuses": dict(Counter(str(reply.status) for reply in replies)),
        "answered, seconds": _quantiles(answered),
        "refused, seconds": _quantiles(refused),
        "back to normal after": round(back, 1),
        "passed": back <= 5 and {reply.status for reply in replies} <= {200, 503} and bool(refused),
    }


def _served_per_second(client: Client, clients: int, seconds: float = 10) -> float:
    """Requests per second if each client waits for its answer before it sends the next request."""
    done: list[bool] = []

    def work(number: int, go_on: Callable[[], bool]) -> None:
        seed = number
        while go_on():
            done.append(client.ask(body(seed)).answered)
            seed += clients

    taken = run_clients(clients, work, seconds)
    return max(1.0, sum(done) / taken)


def _quantiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ordered = sorted(seconds)
    return {"median": round(statistics.median(ordered), 3), "longest": round(ordered[-1], 3)}


def memory(client: Client, arguments: argparse.Namespace) -> dict[str, Any]:
    """Resident memory of all processes of the server over many requests of mixed sizes."""
    family = client.server()
    series: list[int] = []
    total = arguments.requests
    with ThreadPoolExecutor(8) as pool:
        for start in range(0, total, total // 20):
            seeds = range(start, min(start + total // 20, total))
            replies = list(pool.map(lambda seed: client.ask(body(seed)), seeds))
            if not all(reply.answered for reply in replies):
                return {"passed": False, "outcome": str(next(r for r in replies if not r.answered))[:300]}
            series.append(sum(process.memory_info().rss for process in family if process.is_running()) >> 20)
    warm = statistics.median(series[4:8])
    growth = statistics.median(series[-4:]) / warm - 1
    return {"MiB": series, "growth after warm-up": round(growth, 4), "passed": growth <= 0.05}


def hostile(client: Client, arguments: argparse.Namespace) -> dict[str, Any]:
    """The server answers all hostile requests in its usual JSON form, and a normal request after them."""
    family = client.server()
    before = sum(process.memory_info().rss for process in family)
    statuses, lost, peak = Counter[int](), [], before
    count = 0
    for raw in _hostile_bodies(arguments.requests):
        reply = client.ask(None, 120, raw)
        count += 1
        statuses[reply.status] += 1
        # A server may close the connection on a body that it will not read to its end.
        if reply.status == 0 and len(raw) < 10 << 20:
            lost.append(f"{reply.content[:100]} to {raw[:60]!r}")
        if count % 200 == 0:
            peak = max(peak, sum(process.memory_info().rss for process in family if process.is_running()))
    normal = client.ask(body(2))
    alive = all(process.is_running() for process in family)
    return {
        "sent": count,
        "statuses": {str(status): number for status, number in statuses.items()},
        "lost": lost[:5],
        "MiB before, at most": [before >> 20, peak >> 20],
        "passed": normal.answered and alive and not lost and (arguments.allow_500 or not statuses[500]),
    }


def _hostile_bodies(count: int) -> Iterator[bytes]:
    rng = random.Random(0)
    for number in range(count):
        good = bytearray(image(number % 50, 120, _FORMATS[number % len(_FORMATS)]))
        if rng.random() < 0.4:
            del good[rng.randrange(len(good)) :]
        for _ in range(rng.randint(1, 20) if good else 0):
            good[rng.randrange(len(good))] = rng.randrange(256)
        yield b'{"labels": ["a", "b"], "images": ["' + encoded(bytes(good)).encode() + b'"]}'
    for bomb in _bombs():
        yield b'{"labels": ["a", "b"], "images": ["' + encoded(bomb).encode() + b'"]}'
    for field in RequestBody.model_fields:
        for value in (
            "null",
            "true",
            "-1",
            "1e999",
            '"x"',
            "[]",
            "[[]]",
            "{}",
            "[null]",
            '"/etc/passwd"',
            '["%s%n"]',
        ):
            yield f'{{"{field}": {value}}}'.encode()
            yield f'{{"texts": ["a"], "{field}": {value}}}'.encode()
    yield b"[" * 500_000
    yield b'{"texts": ' * 5000 + b"1" + b"}" * 5000
    yield b'{"paths": ["/etc/passwd", "http://127.0.0.1/", "file:///etc/passwd"]}'
    for size in (20, 100):
        yield b'{"texts": ["' + b"a" * (size << 20) + b'"]}'


def _bombs() -> Iterator[bytes]:
    """Small files with huge images."""
    for kind, side in (("PNG", 20_000), ("GIF", 15_000), ("TIFF", 20_000), ("WEBP", 16_000)):
        file = io.BytesIO()
        options: dict[str, Any] = {"compression": "tiff_deflate"} if kind == "TIFF" else {}
        Image.new("L" if kind != "WEBP" else "RGB", (side, side)).save(file, kind, **options)
        yield file.getvalue()
