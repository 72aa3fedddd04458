"""Compile the towers of one module, and check their outputs against those of the uncompiled graphs.

`compile_cache.py` starts `python -m clip_common.engines.compile_worker` with the module's name, the
settings of its weights, the weights, their hash, the runtime, the precision and the folder.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np

from ..config import Preprocessing, Pretrained, pretrained
from ..system.cache import content_sha256
from ..system.output import no_room_in, sync
from ..weights.weights_file import WeightsFile, read_whole
from .artifacts import MANIFEST, NO_ROOM, file_of
from .calibration import calibration_images
from .compiled_engine import Runtime, runtime
from .graph.int8 import Int8Graph, Range, RangesGraph, joined
from .graph.towers import TOWERS, TowerName, probe, write_tower
from .runtime_onnx import open_graph, open_outputs

_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.1}  # relative to the largest value of the features
_LEAST_COSINE = 0.9  # minimum mean cosine of int8 with float32 features
_COMPARED = 8  # images for that cosine
_MEASURED_AT_ONCE = 4  # images per batch while measuring ranges


def main() -> None:
    """Compile with the arguments of the command line."""
    name, settings, weights, sha256, runtime_name, precision, folder = sys.argv[1:]
    record = _with_settings(pretrained(name), settings)
    found = WeightsFile(Path(weights), sha256, record)
    state = read_whole(found)
    with tempfile.TemporaryDirectory(dir=folder) as scratch, _full_disk_reported(Path(folder)):
        work = _Work(record, state, runtime(runtime_name), precision, Path(folder), Path(scratch))
        with ThreadPoolExecutor(len(TOWERS)) as pool:
            files = dict(itertools.chain(*pool.map(work, TOWERS)))
        found.require_unchanged()
        scale = float(np.exp(state["logit_scale"].astype(np.float32)))
        (Path(folder) / MANIFEST).write_text(json.dumps({"logit_scale": scale, "files": files}), "utf-8")


@contextlib.contextmanager
def _full_disk_reported(folder: Path) -> Iterator[None]:
    """End the process with the status `NO_ROOM` and the reason on standard error if the disk is full."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if reason := no_room_in(folder, error):
            print(reason, file=sys.stderr)
            sys.exit(NO_ROOM)
        raise


@dataclass(frozen=True)
class _Work:
    """Compiles a tower. Both towers are compiled in parallel, since most of the time is spent copying."""

    record: Pretrained
    state: Mapping[str, np.ndarray]
    compiler: Runtime
    precision: str
    folder: Path
    scratch: Path
    compiling: Lock = field(default_factory=Lock)
    """Held while the runtime compiles, which takes twice the memory of a tower."""

    def __call__(self, tower: TowerName) -> list[tuple[str, str]]:
        """Compile, check and sync a tower; returns the names and hashes of its files."""
        if tower == "image" and self.precision == "int8":
            graph = _write_int8(self.record, self.state, self.scratch)
        else:
            graph = write_tower(self.record.config, self.state, tower, self.scratch)
        given, target = probe(self.record.config, tower), self.folder / file_of(tower)
        expected = open_graph(graph)(*given)
        with self.compiling:
            self.compiler.compile_tower(graph, target, self.precision)
        answer = self.compiler.open_tower(target, self.precision)(*given)
        if not np.abs(answer - expected).max() <= _TOLERANCE[self.precision] * np.abs(expected).max():
            raise SystemExit(f"the compiled {tower} tower gives other features than its graph")
        files = list(self.folder.glob(f"{target.name}*"))
        for file in files:
            sync(file)
        return [(file.name, content_sha256(file)) for file in files]


def _with_settings(record: Pretrained, settings: str) -> Pretrained:
    """The record of a module with the settings of its weights, passed by `compile_cache.py` as JSON."""
    activation, preprocessing = json.loads(settings)
    lists = {name: tuple(value) for name, value in preprocessing.items() if isinstance(value, list)}
    return record.with_settings(activation, Preprocessing(**{**preprocessing, **lists}))


def _write_int8(record: Pretrained, state: Mapping[str, np.ndarray], folder: Path) -> Path:
    """Write the graph of the image tower in int8, with input ranges measured on the calibration images.

    The text tower stays in float32: label embeddings are cached, and it is the smaller part of the work.
    """
    images = calibration_images(record.config.image_resolution, record.preprocessing)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        measured = write_tower(record.config, state, "image", Path(scratch), RangesGraph)
        exact, ranges = _measure(measured, images)
    graph = write_tower(record.config, state, "image", folder, partial(Int8Graph, ranges=ranges))
    cosine = _mean_cosine(exact[:_COMPARED], open_graph(graph)(images[:_COMPARED]))
    if cosine < _LEAST_COSINE:
        raise SystemExit(
            f"int8 does not suit these weights: the cosine to float32's features is {cosine:.2f}"
        )
    return graph


def _measure(graph: Path, images: np.ndarray) -> tuple[np.ndarray, list[Range]]:
    """Run a graph written by `RangesGraph`: features of the images, and the input range of each layer."""
    run = open_outputs(graph)
    features, ranges = [], []
    for start in range(0, len(images), _MEASURED_AT_ONCE):
        answer, *bounds = run(images[start : start + _MEASURED_AT_ONCE])
        features.append(answer)
        ranges.append([Range(*pair) for pair in zip(bounds[::2], bounds[1::2], strict=True)])
    return np.concatenate(features), joined(ranges)


def _mean_cosine(exact: np.ndarray, found: np.ndarray) -> float:
    products = (exact * found).sum(axis=1)
    return float(np.mean(products / np.linalg.norm(exact, axis=1) / np.linalg.norm(found, axis=1)))


if __name__ == "__main__":
    main()
