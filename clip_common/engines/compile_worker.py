"""Compiles one module's towers and checks that they give what their graphs say.

`compile_cache.py` starts `python -m clip_common.engines.compile_worker` with the module's name, the
settings of its weights, the weights, their hash, the runtime, the precision and the folder.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from ..config import Preprocessing, Pretrained, pretrained
from ..weights.weights_file import WeightsFile, read_whole
from .artifacts import MANIFEST, file_of
from .calibration import calibration_images
from .compiled_engine import runtime
from .graph.int8 import Int8Graph, Range, RangesGraph, joined
from .graph.towers import TOWERS, probe, write_tower
from .runtime_onnx import open_graph, open_outputs

_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.1}  # of the largest number of a feature
_LEAST_COSINE = 0.9  # of int8's features with float32's; what differs more answers something else
_COMPARED = 8  # images
_MEASURED_AT_ONCE = 4  # images


def main() -> None:
    """Compile what the command line names."""
    name, settings, weights, sha256, runtime_name, precision, folder = sys.argv[1:]
    compiler = runtime(runtime_name)
    record = _with_settings(pretrained(name), settings)
    found = WeightsFile(Path(weights), sha256, record)
    config = record.config
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        state = read_whole(found)
        graphs = {
            "image": _write_image_tower(record, state, precision, Path(scratch)),
            "text": write_tower(config, state, "text", Path(scratch)),
        }
        scale = float(np.exp(state["logit_scale"].astype(np.float32)))
        found.require_unchanged()
        for tower in TOWERS:
            given, target = probe(config, tower), Path(folder) / file_of(tower)
            expected = open_graph(graphs[tower])(*given)
            compiler.compile_tower(graphs[tower], target, precision)
            answer = compiler.open_tower(target, precision)(*given)
            if not np.abs(answer - expected).max() <= _TOLERANCE[precision] * np.abs(expected).max():
                raise SystemExit(f"the compiled {tower} tower does not give what its graph says")
    (Path(folder) / MANIFEST).write_text(json.dumps({"logit_scale": scale}), "utf-8")


def _with_settings(record: Pretrained, settings: str) -> Pretrained:
    """A module's record with what `compile_cache.py` says of its weights."""
    activation, preprocessing = json.loads(settings)
    lists = {name: tuple(value) for name, value in preprocessing.items() if isinstance(value, list)}
    return record.with_settings(activation, Preprocessing(**{**preprocessing, **lists}))


def _write_image_tower(
    record: Pretrained, state: Mapping[str, np.ndarray], precision: str, folder: Path
) -> Path:
    """The image tower's graph; in int8 with ranges that are measured now.

    The text tower stays in float32: its labels are kept, and it is the smaller part of any work.
    """
    if precision != "int8":
        return write_tower(record.config, state, "image", folder)
    images = calibration_images(record.config.image_resolution, record.preprocessing)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        measured = write_tower(record.config, state, "image", Path(scratch), RangesGraph)
        exact, ranges = _measure(measured, images)
    graph = write_tower(record.config, state, "image", folder, partial(Int8Graph, ranges=ranges))
    cosine = _mean_cosine(exact[:_COMPARED], open_graph(graph)(images[:_COMPARED]))
    if cosine < _LEAST_COSINE:
        raise SystemExit(f"int8 does not suit these weights: a cosine to float32's features of {cosine:.2f}")
    return graph


def _measure(graph: Path, images: np.ndarray) -> tuple[np.ndarray, list[Range]]:
    """The features of images, and the range of each layer's input on them, of a graph that a `RangesGraph`
    wrote."""
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
