"""Compiled towers on ONNX Runtime. Weights are mapped from the cache, so processes that run the same model
share their memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from ..system import threads

# From the package, because the distribution may have another name, such as onnxruntime-gpu.
VERSION: str = onnxruntime.__version__


def compile_tower(source: Path, target: Path, precision: str) -> None:
    """Optimise a graph for this CPU and write it, with its weights in a separate file, already packed in the
    layout that the kernels of this CPU need."""
    assert precision == "float32"
    options = _options()
    options.optimized_model_filepath = str(target)
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", f"{target.name}.data"),
        # ONNX Runtime aligns only tensors of at least 1 MiB; kernels crash on unaligned packed weights.
        ("session.optimized_model_external_initializers_min_size_in_bytes", str(1 << 20)),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(key, value)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def open_tower(path: Path, precision: str) -> Callable[..., np.ndarray]:
    """Open a tower written by `compile_tower`: a thread-safe function of its inputs."""
    assert precision == "float32"
    run = _open(path, _options())  # already optimised
    return lambda *inputs: run(*inputs)[0]


def open_graph(path: Path) -> Callable[..., np.ndarray]:
    """Open an ONNX graph without any optimisation, as a function that returns its first output."""
    run = open_outputs(path)
    return lambda *inputs: run(*inputs)[0]


def open_outputs(path: Path) -> Callable[..., list[np.ndarray]]:
    """Open an ONNX graph without any optimisation, as a function that returns all of its outputs."""
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
