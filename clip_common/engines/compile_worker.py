"""Compiles one module's towers and checks that they give what their graphs say.

`compile_cache.py` starts `python -m clip_common.engines.compile_worker` with the module's name, the
activation, the weights, their hash, the runtime, the precision and the folder.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import cast

import numpy as np

from ..config import Activation, pretrained
from ..weights.weights_file import WeightsFile, read_whole
from .artifacts import MANIFEST, file_of
from .compiled_engine import runtime
from .graph.towers import TOWERS, probe, write_tower
from .runtime_onnx import open_graph

_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}  # of the largest number of a feature


def main() -> None:
    """Compile what the command line names."""
    name, activation, weights, sha256, runtime_name, precision, folder = sys.argv[1:]
    compiler = runtime(runtime_name)
    record = pretrained(name)
    record = record.with_settings(cast(Activation, activation), record.preprocessing)
    found = WeightsFile(Path(weights), sha256, record)
    config = record.config
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        state = read_whole(found)
        graphs = {tower: write_tower(config, state, tower, Path(scratch)) for tower in TOWERS}
        scale = float(np.exp(state["logit_scale"].astype(np.float32)))
        found.require_unchanged()
        for tower, graph in graphs.items():
            given, target = probe(config, tower), Path(folder) / file_of(tower)
            expected = open_graph(graph)(*given)
            compiler.compile_tower(graph, target, precision)
            answer = compiler.open_tower(target, precision)(*given)
            if not np.abs(answer - expected).max() <= _TOLERANCE[precision] * np.abs(expected).max():
                raise SystemExit(f"the compiled {tower} tower does not give what its graph says")
    (Path(folder) / MANIFEST).write_text(json.dumps({"logit_scale": scale}), "utf-8")


if __name__ == "__main__":
    main()
