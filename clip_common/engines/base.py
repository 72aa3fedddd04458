"""The interface of the inference engines: batches of pixels or token ids in, features out, all numpy.

The implementations are the model on Paddle, which also runs on a GPU, and the same model compiled for ONNX
Runtime or OpenVINO, which are about twice as fast on a CPU.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

ENGINES = ("auto", "onnxruntime", "openvino", "paddle")
PRECISIONS = ("float32", "bfloat16", "int8")


class Engine(Protocol):
    """Runs the two towers of a CLIP model, without gradients. Thread-safe."""

    name: str
    logit_scale: float
    """The factor that cosines are multiplied by in the softmax, not its logarithm."""

    def encode_image(self, pixels: np.ndarray) -> np.ndarray:
        """Encode pixels, float32 [N, 3, R, R], to features, float32 [N, embed_dim], not normalised."""

    def encode_text(self, ids: np.ndarray, batch_size: int) -> np.ndarray:
        """Encode token ids, int64 [N, L], to features, float32 [N, embed_dim], not normalised."""
