"""The seam between numpy and what multiplies matrices: batches of pixels or token ids in, features out.

Everything above this file is numpy. Below are the model on Paddle, which also runs on a GPU, and the same
model compiled for ONNX Runtime or OpenVINO, which on a CPU are about twice as fast.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

ENGINES = ("auto", "onnxruntime", "openvino", "paddle")
PRECISIONS = ("float32", "bfloat16", "int8")


class Engine(Protocol):
    """Runs a CLIP's two towers, without gradients. Safe to call from several threads."""

    name: str
    logit_scale: float
    """What cosines are multiplied by: the factor itself, not its logarithm."""

    def encode_image(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels, float32 [N, 3, R, R], to features, float32 [N, embed_dim], not normalised."""

    def encode_text(self, ids: np.ndarray, batch_size: int) -> np.ndarray:
        """Token ids, int64 [N, L], to features, float32 [N, embed_dim], not normalised."""
