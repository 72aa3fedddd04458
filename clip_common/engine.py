"""The seam between numpy and what multiplies matrices: batches of pixels or token ids in, features out.

Everything above this file is numpy. Two engines are below: the model on Paddle, which also runs on a GPU,
and the same model compiled for ONNX Runtime, which on a processor is about twice as fast.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .cache import logger
from .compiled import CompileError, compiled_folder
from .config import Pretrained
from .errors import RequestError
from .tokenizer import lengths
from .weights import Weights, load_model

if TYPE_CHECKING:
    from .engine_paddle import PaddleEngine
    from .model import CLIP

ENGINES = ("auto", "onnxruntime", "paddle")


class Engine(Protocol):
    """Runs a CLIP's two towers, without gradients. Safe to call from several threads."""

    name: str
    logit_scale: float
    """What cosines are multiplied by: the factor itself, not its logarithm."""

    def encode_image(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels, float32 [N, 3, R, R], to features, float32 [N, embed_dim], not normalised."""

    def encode_text(self, ids: np.ndarray, batch_size: int) -> np.ndarray:
        """Token ids, int64 [N, L], to features, float32 [N, embed_dim], not normalised."""


def in_batches_of_like_length(
    ids: np.ndarray,
    encode: Callable[[np.ndarray], np.ndarray],
    batch_size: int,
    most_tokens: int | None = None,
) -> np.ndarray:
    """Run texts [N, L] in batches of like length, each padded to its longest only.

    The feature is read at the end token and attention is causal, so the result is that of all of L.

    Args:
        ids: token ids, int64 [N, L].
        encode: one batch [n, l] to features [n, D].
        batch_size: texts in a batch at most.
        most_tokens: tokens in a batch at most, padding included, if that is fewer texts.
    """
    length = np.asarray(lengths(ids))
    order = np.argsort(length, kind="stable")
    parts, start = [], 0
    while start < len(order):
        rows = order[start : start + batch_size]
        if most_tokens is not None:
            size = np.arange(1, len(rows) + 1) * length[rows]  # tokens of the first 1, 2, ... texts
            rows = rows[: max(1, int((size <= most_tokens).sum()))]
        parts.append(encode(ids[rows, : length[rows].max()]))
        start += len(rows)
    features = np.concatenate(parts)
    return features[np.argsort(order)]


def choose(engine: str) -> tuple[str, str]:
    """The engine that a name means on this machine, and why.

    Raises:
        RequestError: there is no such engine, or it is not installed.
    """
    if engine not in ENGINES:
        raise RequestError(f"engine is {engine!r}, expected one of {', '.join(ENGINES)}")
    if engine == "paddle":
        return "paddle", "asked for by name"
    installed = importlib.util.find_spec("onnxruntime") is not None
    if engine == "onnxruntime":
        if not installed:
            raise RequestError("engine is 'onnxruntime', which is not installed: pip install onnxruntime")
        return "onnxruntime", "asked for by name"
    if installed:
        return "onnxruntime", "the fastest measured on processors (see benchmarks/)"
    return "paddle", "onnxruntime is not installed, which is about twice as fast on a processor"


class Engines:
    """The engines of one set of weights, each opened when it is first needed.

    Args:
        record: the module.
        weights: its weights.
        engine: one of `ENGINES`, for the processor; the GPU is Paddle's.
    """

    def __init__(self, record: Pretrained, weights: Weights, engine: str = "auto") -> None:
        self._record, self._weights = record, weights
        self._choice, self.reason = choose(engine)
        self._lock = Lock()

    @cached_property
    def model(self) -> CLIP:
        """The model itself, a `paddle.nn.Layer`."""
        return load_model(self._record, self._weights)

    @cached_property
    def logit_scale(self) -> float:
        """What cosines are multiplied by."""
        opened = self._paddle if "_paddle" in vars(self) else self.get(use_gpu=False)
        return opened.logit_scale

    def get(self, use_gpu: bool) -> Engine:
        """The engine for the processor, or for the GPU.

        Raises:
            RequestError: a GPU is asked for that this Paddle, or this machine, does not have.
        """
        with self._lock:
            if not use_gpu and self._choice == "onnxruntime" and (engine := self._onnx):
                return engine
            self._paddle.use(use_gpu)
            return self._paddle

    @cached_property
    def _onnx(self) -> Engine | None:
        """The compiled towers; None, with a warning, where they cannot be compiled or kept."""
        from .engine_onnx import OnnxEngine

        try:
            return OnnxEngine(compiled_folder(self._record, self._weights))
        except CompileError as error:
            logger.warning("%s runs on Paddle, which is slower: %s", self._record.name, error)
            return None

    @cached_property
    def _paddle(self) -> PaddleEngine:
        from .engine_paddle import PaddleEngine

        return PaddleEngine(self.model)
