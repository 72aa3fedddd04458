"""The seam between numpy and the framework: batches of pixels or token ids in, features out.

Everything above this file is numpy, everything below is Paddle; another way of running the same towers
is another class with these two methods.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import paddle

from . import threads
from .errors import RequestError
from .model import CLIP
from .tokenizer import lengths


class Engine:
    """Runs a CLIP's two towers on the processor or on a GPU, without gradients."""

    def __init__(self, model: CLIP) -> None:
        threads.settle()
        self.model = model
        self._device = "cpu"

    def use(self, use_gpu: bool) -> None:
        """Move the model to where the next batches run.

        Raises:
            RequestError: a GPU is asked for that this Paddle, or this machine, does not have.
        """
        device = "gpu" if use_gpu else "cpu"
        if device == self._device:
            return
        if use_gpu and not paddle.is_compiled_with_cuda():
            raise RequestError(
                "use_gpu is set, and the installed PaddlePaddle is the CPU build: "
                "install paddlepaddle-gpu in its place (see the README), or leave use_gpu out"
            )
        if use_gpu and paddle.device.cuda.device_count() == 0:
            raise RequestError("use_gpu is set, and no GPU is visible (check CUDA_VISIBLE_DEVICES)")
        self.model.to(device)
        self._device = device

    def encode_image(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels, float32 [N, 3, R, R], to features, float32 [N, D], not normalised."""
        with _inference():
            return self.model.encode_image(self._tensor(pixels)).numpy()

    def encode_text(self, ids: np.ndarray, batch_size: int) -> np.ndarray:
        """Token ids, int64 [N, L], to features, float32 [N, D], not normalised.

        Texts are run in batches of like length, each padded to its longest only: the feature is read at
        the end token and attention is causal, so the result is the same as with all of L.
        """
        length = np.asarray(lengths(ids))
        order = np.argsort(length, kind="stable")
        features = np.empty((len(ids), self.model.config.embed_dim), np.float32)
        with _inference():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                batch = ids[rows, : length[rows].max()]
                features[rows] = self.model.encode_text(self._tensor(batch)).numpy()
        return features

    def _tensor(self, array: np.ndarray) -> paddle.Tensor:
        return paddle.to_tensor(array, place=self._device)


@contextlib.contextmanager
def _inference() -> Iterator[None]:
    """Dynamic graph, no gradients. Another hub module may have left the process in static mode."""
    static = not paddle.in_dynamic_mode()
    if static:
        paddle.disable_static()
    try:
        with paddle.no_grad():
            yield
    finally:
        if static:
            paddle.enable_static()
