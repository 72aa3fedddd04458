"""The compiled towers on ONNX Runtime. Their weights are mapped from the cache: they take no memory of the
process's own, and processes that run the same model share them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime

from . import compiled, threads
from .engine import in_batches_of_like_length

_PICTURES_AT_ONCE = 8  # more fall out of the processor's cache
_TOKENS_AT_ONCE = 512


class OnnxEngine:
    """An `Engine` over a folder that `compiled.py` made."""

    name = "onnxruntime"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.logit_scale = compiled.logit_scale(folder)

    def encode_image(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels, float32 [N, 3, R, R], to features, float32 [N, D], not normalised."""
        parts = [
            run(self._image, pixels[start : start + _PICTURES_AT_ONCE])
            for start in range(0, len(pixels), _PICTURES_AT_ONCE)
        ]
        return np.concatenate(parts)

    def encode_text(self, ids: np.ndarray, batch_size: int) -> np.ndarray:
        """Token ids, int64 [N, L], to features, float32 [N, D], not normalised."""
        return in_batches_of_like_length(
            ids, lambda batch: run(self._text, batch), batch_size, _TOKENS_AT_ONCE
        )

    @cached_property
    def _image(self) -> onnxruntime.InferenceSession:
        return open_session(self._folder / "image.onnx")

    @cached_property
    def _text(self) -> onnxruntime.InferenceSession:
        return open_session(self._folder / "text.onnx")


def run(session: onnxruntime.InferenceSession, given: np.ndarray) -> np.ndarray:
    """A tower's features."""
    return session.run(None, {session.get_inputs()[0].name: given})[0]


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A tower that `compile_session` wrote."""
    options = _options()
    # It was optimised when it was compiled.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _options() -> onnxruntime.SessionOptions:
    """What compiling and running share."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.count()
    options.log_severity_level = 3  # errors
    # Idle threads sleep: beside another busy process, spinning ones bring both to their knees.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def compile_session(source: Path, target: Path) -> None:
    """Optimise a graph for this machine and write it, with its weights beside it in the order and packing
    that the kernels of this processor read."""
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
