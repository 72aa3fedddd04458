"""Compiles one module's towers and checks that they give what the model gives.

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
from ..models.export import write_onnx
from ..models.factory import load_model
from ..weights.weights_file import WeightsFile
from .artifacts import MANIFEST, file_of
from .compiled_engine import runtime
from .fused_towers import probe, towers

_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}  # of the largest number of a feature


def main() -> None:
    """Compile what the command line names."""
    name, activation, weights, sha256, runtime_name, precision, folder = sys.argv[1:]
    compiler = runtime(runtime_name)
    record = pretrained(name)
    record = record.with_settings(cast(Activation, activation), record.preprocessing)
    model = load_model(WeightsFile(Path(weights), sha256, record))
    for tower, (layer, specs) in towers(model).items():
        target = Path(folder) / file_of(tower)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            graph = write_onnx(layer, specs, Path(scratch) / f"{tower}.onnx")
            compiler.compile_tower(graph, target, precision)
        given, expected = probe(model, tower)
        found = compiler.open_tower(target, precision)(*given)
        if not np.abs(found - expected).max() <= _TOLERANCE[precision] * np.abs(expected).max():
            raise SystemExit(f"the compiled {tower} tower does not give what the model gives")
    scale = float(np.exp(model.logit_scale.numpy()))
    (Path(folder) / MANIFEST).write_text(json.dumps({"logit_scale": scale}), "utf-8")


if __name__ == "__main__":
    main()
