"""The engine that runs the Paddle model: on a GPU, and on a CPU if no faster engine is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from threading import Lock

import numpy as np
import paddle

from ..errors import RequestError
from ..models.clip import CLIP
from ..models.dynamic_graph import dynamic_graph
from ..system import threads
from .text_batching import encode_in_batches


def require_gpu() -> None:
    """Check that Paddle can use a GPU on this machine.

    Raises:
        RequestError: Paddle was built without CUDA, or there is no GPU.
    """
    if not paddle.is_compiled_with_cuda():
        raise RequestError(
            "use_gpu is set, and the installed PaddlePaddle is the CPU build: "
            "install paddlepaddle-gpu in its place (see the README), or leave use_gpu out"
        )
    if paddle.device.cuda.device_count() == 0:
        raise RequestError("use_gpu is set, and no GPU is visible (check CUDA_VISIBLE_DEVICES)")


class PaddleEngine:
    """An `Engine` that calls the layers of the Paddle model."""

    name = "paddle"

    def __init__(self, model: CLIP) -> None:
        threads.configure()
        self.model = model
        self.logit_scale = float(np.exp(model.logit_scale.numpy()))
        self._device = "cpu"
        self._one_at_a_time = Lock()  # static or dynamic graph mode is global state of Paddle

    def use(self, use_gpu: bool) -> None:
        """Move the model to the GPU or back to the CPU.

        Raises:
            RequestError: `use_gpu` is set, but Paddle was built without CUDA or there is no GPU.
        """
        device = "gpu" if use_gpu else "cpu"
        if device == self._device:
            return
        if use_gpu:
            require_gpu()
        self.model.to(device)
        self._device = device

    def encode_image(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels, float32 [N, 3, R, R], to features, float32 [N, D], not normalised."""
        with self._one_at_a_time, inference():
            return self.model.encode_image(self._tensor(pixels)).numpy()

    def encode_text(self, ids: np.ndarray, batch_size: int) -> np.ndarray:
        """Token ids, int64 [N, L], to features, float32 [N, D], not normalised."""
        with self._one_at_a_time, inference():
            return encode_in_batches(self.model.config.text, ids, self._encode_texts, batch_size)

    def _encode_texts(self, *parts: np.ndarray) -> np.ndarray:
        """Encode a batch of texts [N, L], or a common prefix [B] and the suffixes [N, L]."""
        *prefix, suffix = parts
        shared = [np.broadcast_to(tokens, (len(suffix), len(tokens))) for tokens in prefix]
        return self.model.encode_text(self._tensor(np.concatenate([*shared, suffix], axis=1))).numpy()

    def _tensor(self, array: np.ndarray) -> paddle.Tensor:
        return paddle.to_tensor(array, place=self._device)


@contextlib.contextmanager
def inference() -> Iterator[None]:
    """Dynamic graph mode without gradients."""
    with dynamic_graph(), paddle.no_grad():
        yield
