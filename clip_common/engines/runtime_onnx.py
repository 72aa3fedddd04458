"""The compiled towers on ONNX Runtime. Their weights are mapped from the cache: they take no memory of the
process's own, and processes that run the same model share them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from ..system import threads

# Of the package itself: its distribution has other names too, onnxruntime-gpu for one.
VERSION: str = onnxruntime.__version__


def compile_tower(source: Path, target: Path, precision: str) -> None:
    """Optimise a graph for this machine and write it, with its weights beside it in the order and packing
    that the kernels of this CPU read."""
    assert precision == "float32"
    options = _options()
    options.optimized_model_filepath = str(target)
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", f"{target.name}.data"),
        # ONNX Runtime aligns those from 1 MiB; kernels crash on packed weights that are not aligned.
        ("session.optimized_model_external_initializers_min_size_in_bytes", str(1 << 20)),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(key, value)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def open_tower(path: Path, precision: str) -> Callable[..., np.ndarray]:
    """What runs a tower that `compile_tower` wrote, in any thread."""
    assert precision == "float32"
    run = _open(path, _options())  # it was optimised when it was compiled
    return lambda *inputs: run(*inputs)[0]


def open_graph(path: Path) -> Callable[..., np.ndarray]:
    """What runs an ONNX graph as it is written to its first output: no node rewritten, no weight packed."""
    run = open_outputs(path)
    return lambda *inputs: run(*inputs)[0]


def open_outputs(path: Path) -> Callable[..., list[np.ndarray]]:
    """What runs an ONNX graph as it is written, to all of its outputs."""
    options = _options()
    options.add_session_config_entry("session.disable_prepacking", "1")
    return _open(path, options)


def _open(path: Path, options: onnxruntime.SessionOptions) -> Callable[..., list[np.ndarray]]:
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def _options() -> onnxruntime.SessionOptions:
    """What compiling and running share."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.count()
    options.log_severity_level = 3  # errors
    # Idle threads sleep: beside another busy process, spinning ones bring both to their knees.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
