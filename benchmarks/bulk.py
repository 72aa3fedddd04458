"""`python -m benchmarks.bulk CHECK --folder DIR`: embedding and search of many images. Prints JSON.

pictures   make `--count` small images in DIR from those of examples/
kills      embed them, killed ten times at random moments: each image is there exactly once; rate and memory
search     index the embeddings; recall at 10 against brute force, time of a search and of `clip-hub search`
nodes      embed some on a Ray cluster of two nodes, one killed half-way: same embeddings as in one process
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clip_common.config import pretrained
from clip_common.predictor import Predictor

_EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
_PER_FOLDER = 1000
_KILLS = 10
_OFFLINE = 6000  # images for measuring the rate without a store
_QUERIES = 200


def images(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make small, different JPEG images: crops of the example images, rotated, resized and tinted."""
    starts = range(0, arguments.count, _PER_FOLDER)
    with ProcessPoolExecutor() as pool:
        made = sum(pool.map(_make_folder, [(arguments.folder, start, arguments.count) for start in starts]))
    return {"pictures": made, "passed": made == arguments.count}


def _make_folder(given: tuple[Path, int, int]) -> int:
    folder, start, count = given
    sources = [Image.open(path).convert("RGB") for path in sorted(_EXAMPLES.glob("*.png"))]
    target = folder / "pictures" / f"{start:06d}"
    target.mkdir(parents=True, exist_ok=True)
    numbers = range(start, min(start + _PER_FOLDER, count))
    for number in numbers:
        rng = random.Random(number)
        image = rng.choice(sources)
        side = rng.randint(image.width // 2, image.width)
        left, upper = rng.randint(0, image.width - side), rng.randint(0, image.height - side)
        image = image.crop((left, upper, left + side, upper + side)).rotate(rng.uniform(-30, 30))
        image = image.resize((rng.randint(80, 160), rng.randint(80, 160)))
        tint = Image.new("RGB", image.size, tuple(rng.randrange(256) for _ in range(3)))
        Image.blend(image, tint, rng.uniform(0, 0.4)).save(target / f"{number:06d}.jpg", quality=85)
    return len(numbers)


def kills(arguments: argparse.Namespace) -> dict[str, Any]:
    """Embed with ten SIGKILLs, then to the end; rate and memory are measured in the last run."""
    output, files = arguments.folder / "vectors", _files(arguments.folder)
    offline = _offline_rate(files[:_OFFLINE])
    rng = random.Random(0)
    for _ in range(_KILLS):
        process = _embed(arguments.folder / "pictures", output)
        time.sleep(rng.uniform(8, 40))
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = _rows(output)
    start, series = time.perf_counter(), []
    process = _embed(arguments.folder / "pictures", output)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        time.sleep(2)
        if watched.is_running() and watched.status() != psutil.STATUS_ZOMBIE:
            series.append(watched.memory_info().rss >> 20)
    seconds = time.perf_counter() - start
    paths = _column(output, "path")
    rate = (len(paths) - before) / seconds
    middle = series[len(series) // 4 :]
    growth = statistics.median(middle[-5:]) / statistics.median(middle[:5]) - 1
    once = sorted(paths) == sorted(map(str, files))
    return {
        "pictures": len(paths),
        "each exactly once": once,
        "embedded before the last start": before,
        "per second, start included": round(rate, 1),
        "offline per second": round(offline, 1),
        "share": round(rate / offline, 3),
        "MiB": [max(series[:5]), max(series)],
        "growth": round(growth, 3),
        "passed": once and rate >= 0.9 * offline and growth <= 0.05 and process.returncode == 0,
    }


def _offline_rate(files: list[Path]) -> float:
    predictor = Predictor(pretrained("clip_mini"))
    predictor.embed(paths=files[:64])
    start = time.perf_counter()
    predictor.embed(paths=files)
    return len(files) / (time.perf_counter() - start)


def _embed(source: Path, output: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "clip_common", "embed", str(source), "--output", str(output), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def search(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the index with brute force, for text and image queries."""
    from clip_common.embedding.origin import Origin
    from clip_common.embedding.store import Store, vectors_of
    from clip_common.search.index import open_index

    store = Store(arguments.folder / "vectors")
    address = arguments.index or str(arguments.folder / "pictures.index")
    start = time.perf_counter()
    open_index(address).sync(store)
    indexed = time.perf_counter() - start
    start = time.perf_counter()
    index = open_index(address, must_exist=True)
    opened = time.perf_counter() - start
    predictor = Predictor(pretrained("clip_mini"))
    origin = Origin.of(predictor)
    tables = list(store.tables(["path", "vector"]))
    vectors = np.concatenate([vectors_of(table) for table in tables])
    paths = [path for table in tables for path in table["path"].to_pylist()]
    queries = _queries(predictor, vectors)
    place = {path: i for i, path in enumerate(paths)}
    recalls: list[float] = []
    seconds: list[float] = []
    for query in queries:
        start = time.perf_counter()
        hits = index.search(origin, query, 10)
        seconds.append(time.perf_counter() - start)
        scores = vectors @ query
        worst = np.sort(scores)[-10]  # a hit that ties with the tenth counts as right
        recalls.append(sum(bool(scores[place[hit.path]] >= worst - 1e-6) for hit in hits) / 10)
    index.close()
    recall = float(statistics.mean(recalls))
    return {
        "vectors": len(paths),
        "indexed in, seconds": round(indexed, 1),
        "recall at 10": round(recall, 4),
        "milliseconds to open": round(opened * 1000, 1),
        "milliseconds to search, median and 95 %": [
            round(float(np.percentile(seconds, share)) * 1000, 1) for share in (50, 95)
        ],
        "seconds of `clip-hub search`, median of five": round(_search_command(address), 2),
        "passed": recall >= 0.98,
    }


def _search_command(address: str) -> float:
    command = [sys.executable, "-m", "clip_common", "search", "a dog", "--index", address]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _queries(predictor: Predictor, vectors: np.ndarray) -> np.ndarray:
    """Query embeddings: texts, and embeddings near those in the index."""
    words = [
        f"{adjective} {path.stem}" for path in _EXAMPLES.glob("*.png") for adjective in ("a red", "a big")
    ]
    texts = predictor.embed(texts=words)["texts"]
    rng = np.random.default_rng(0)
    near = vectors[rng.integers(len(vectors), size=_QUERIES - len(words))]
    near = near + rng.normal(0, 0.02, near.shape)
    assert texts is not None
    queries = np.concatenate([texts, near])
    return (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)


def nodes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Embed on two Ray nodes on this machine; the second one is killed when half of the parts are written."""
    source = arguments.folder / "some"
    _some_of(arguments.folder, source, arguments.count)
    alone, shared = arguments.folder / "alone", arguments.folder / "shared"
    small = ("--part_size", "200")
    if _embed(source, alone, *small).wait():
        raise SystemExit("embedding in one process failed")
    ray = str(Path(sys.executable).parent / "ray")
    port = "26379"
    first = [ray, "start", "--head", "--port", port, "--num-cpus", "1", "--include-dashboard", "false"]
    second = [ray, "start", "--address", f"127.0.0.1:{port}", "--num-cpus", "1"]
    try:
        subprocess.run(first, check=True, capture_output=True, timeout=120)
        before = {process.pid for process in psutil.process_iter()}
        subprocess.run(second, check=True, capture_output=True, timeout=120)
        start = time.perf_counter()
        process = _embed(source, shared, *small, "--engine", "ray", "--address", f"127.0.0.1:{port}")
        parts = len(list(alone.glob("part-*.parquet")))
        while process.poll() is None and len(list(shared.glob("part-*.parquet"))) < parts / 2:
            time.sleep(0.5)
        killed = _kill_newer_than(before)
        process.wait(timeout=900)
        seconds = time.perf_counter() - start
    finally:
        subprocess.run([ray, "stop", "--force"], capture_output=True, timeout=120, check=False)
    one, other = _vectors(alone), _vectors(shared)
    same = one.keys() == other.keys() and len(_column(shared, "path")) == len(other)
    distance = max(float(np.abs(one[path] - other[path]).max()) for path in one) if same else float("inf")
    return {
        "pictures": len(one),
        "processes killed": killed,
        "each exactly once": same,
        "largest difference": distance,
        "seconds": round(seconds, 1),
        "passed": same and distance <= 1e-5 and killed > 0 and process.returncode == 0,
    }


def _some_of(folder: Path, target: Path, count: int) -> None:
    target.mkdir(exist_ok=True)
    for path in _files(folder)[:count]:
        link = target / path.name
        if not link.exists():
            link.symlink_to(path)


def _kill_newer_than(before: set[int]) -> int:
    """Kill the raylet of the second node; its workers end with it. Returns the number of killed processes."""
    raylets = [
        process
        for process in psutil.process_iter(["pid", "name"])
        if process.info["name"] == "raylet" and process.info["pid"] not in before
    ]
    for process in raylets:
        process.kill()
    return len(raylets)


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "pictures").rglob("*.jpg"))


def _column(store: Path, name: str) -> list[str]:
    return [value for part in store.glob("part-*.parquet") for value in pq.read_table(part)[name].to_pylist()]


def _rows(store: Path) -> int:
    return sum(pq.read_metadata(part).num_rows for part in store.glob("part-*.parquet"))


def _vectors(store: Path) -> dict[str, np.ndarray]:
    tables = [pq.read_table(part) for part in sorted(store.glob("part-*.parquet"))]
    table = pa.concat_tables(tables)
    return dict(zip(table["path"].to_pylist(), map(np.array, table["vector"].to_pylist()), strict=True))


CHECKS = {"pictures": images, "kills": kills, "search": search, "nodes": nodes}


def main() -> int:
    """Run one check; the exit status is 1 if a figure misses its target."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bulk", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--folder", type=Path, required=True, help="where all of this is kept")
    parser.add_argument("--count", type=int, default=100_000, help="images to make, or to embed on nodes")
    parser.add_argument("--index", help="a Milvus server in place of a file in the folder")
    arguments = parser.parse_args()
    figures = CHECKS[arguments.check](arguments)
    print(json.dumps({"check": arguments.check, **figures}))
    return 0 if figures["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
