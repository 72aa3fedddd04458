"""The engine that runs a model compiled for the CPU, by `runtime_onnx.py` or `runtime_openvino.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from ..config import BertConfig, TextConfig
from ..errors import ClipError
from . import artifacts
from .base import Engine
from .text_batching import encode_in_batches

Tower = Callable[..., np.ndarray]
_IMAGES_AT_ONCE = 8  # activations of more images do not fit into the CPU's cache
_TOKENS_AT_ONCE = 512


class Runtime(Protocol):
    """The interface of the modules `runtime_onnx` and `runtime_openvino`."""

    VERSION: str
    """The version of the runtime; compiled towers are valid for one version only."""

    def compile_tower(self, source: Path, target: Path, precision: str) -> None:
        """Compile an ONNX graph for `open_tower`, to `target` and files named after it."""

    def open_tower(self, path: Path, precision: str) -> Tower:
        """Open a compiled tower: a thread-safe function from its inputs to features, float32 [N, D]."""


def runtime(name: str) -> Runtime:
    """Import the runtime with the name of an engine."""
    file = {"onnxruntime": "runtime_onnx", "openvino": "runtime_openvino"}[name]
    return cast(Runtime, import_module(f".{file}", __package__))


class CompiledEngine:
    """An `Engine` that runs the towers in a folder of `compile_cache.py`. Each tower is opened on first use.

    Args:
        name: name of the runtime.
        precision: compute type.
        find_folder: finds the folder, or creates it by compiling; with True, it always compiles.
        on_failure: returns the engine to use for a tower that can neither be opened nor compiled again.
        text: config of the text tower, which determines how texts are batched.
    """

    def __init__(
        self,
        name: str,
        precision: str,
        find_folder: Callable[[bool], Path],
        on_failure: Callable[[Exception], Engine],
        text: TextConfig | BertConfig,
    ) -> None:
        self.name, self._precision = name, precision
        self._find_folder, self._on_failure, self._text_config = find_folder, on_failure, text
        self._folder = find_folder(False)
        self.logit_scale = artifacts.logit_scale(self._folder)

    def encode_image(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels, float32 [N, 3, R, R], to features, float32 [N, D], not normalised."""
        tower = self._image
        if not callable(tower):
            return tower.encode_image(pixels)
        parts = [
            tower(pixels[start : start + _IMAGES_AT_ONCE]) for start in range(0, len(pixels), _IMAGES_AT_ONCE)
        ]
        return np.concatenate(parts)

    def encode_text(self, ids: np.ndarray, batch_size: int) -> np.ndarray:
        """Token ids, int64 [N, L], to features, float32 [N, D], not normalised."""
        tower = self._text
        if not callable(tower):
            return tower.encode_text(ids, batch_size)
        return encode_in_batches(self._text_config, ids, tower, batch_size, _TOKENS_AT_ONCE)

    @cached_property
    def _image(self) -> Tower | Engine:
        return self._open("image")

    @cached_property
    def _text(self) -> Tower | Engine:
        return self._open("text")

    def _open(self, tower: str) -> Tower | Engine:
        """Open a tower. If that fails, for example because its file was removed, compile it again."""
        try:
            try:
                return self._open_in(self._folder, tower)
            except ClipError:
                raise
            except Exception:  # each runtime has its own exceptions
                return self._open_in(self._find_folder(True), tower)
        except Exception as error:
            return self._on_failure(error)

    def _open_in(self, folder: Path, tower: str) -> Tower:
        return runtime(self.name).open_tower(folder / artifacts.file_of(tower), self._precision)
