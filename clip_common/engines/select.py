"""Select the engine for this machine, and open the engines of one set of weights lazily."""

from __future__ import annotations

import importlib.util
import os
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from ..errors import RequestError
from ..system import cpu
from ..system.log import logger
from ..weights.weights_file import WeightsFile
from .base import ENGINES, PRECISIONS, Engine
from .compile_cache import CompileError, compiled_folder

if TYPE_CHECKING:
    from ..models.clip import CLIP
    from .paddle_engine import PaddleEngine


class Choice(NamedTuple):
    """The engine for the CPU, and why it was selected."""

    name: str
    precision: str
    reason: str


def choose(engine: str = "auto", precision: str = "float32") -> Choice:
    """Select the CPU engine for a name ("auto" for the fastest) and a precision.

    Raises:
        RequestError: unknown engine or precision, not installed, or not supported by this CPU.
    """
    if engine not in ENGINES:
        raise RequestError(f"engine is {engine!r}, expected one of {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise RequestError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if engine in ("onnxruntime", "openvino"):
        _require(engine)
    if precision != "float32":
        return _choose_rounded(engine, precision)
    if engine != "auto":
        return Choice(engine, precision, "asked for by name")
    if "avx512f" in cpu.features() and _is_installed("openvino") and _can_enter_current_folder():
        return Choice("openvino", precision, "the fastest measured on CPUs with AVX-512")
    if _is_installed("onnxruntime"):
        return Choice("onnxruntime", precision, "the fastest measured on CPUs (see benchmarks/)")
    reason = "onnxruntime is not installed, which is about twice as fast on a CPU"
    return Choice("paddle", precision, reason)


def _choose_rounded(engine: str, precision: str) -> Choice:
    if engine not in ("auto", "openvino"):
        raise RequestError(
            f"precision is {precision!r}, and engine {engine!r} computes in float32: use 'openvino'"
        )
    is_there, needed = {
        "bfloat16": (cpu.computes_bfloat16(), "AMX or AVX512-BF16"),
        "int8": (cpu.computes_int8(), "AVX-512 VNNI or AVX-VNNI"),
    }[precision]
    if not is_there:
        raise RequestError(
            f"precision is {precision!r}, which this CPU does not support (it needs {needed}): "
            "leave it at 'float32'"
        )
    _require("openvino")
    return Choice("openvino", precision, f"the engine that computes in {precision}")


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _require(package: str) -> None:
    if not _is_installed(package):
        raise RequestError(f"engine {package!r} is not installed: pip install {package}")
    if package == "openvino" and not _can_enter_current_folder():
        raise RequestError(
            "engine 'openvino' cannot run where access to the current folder is denied: change to another one"
        )


def _can_enter_current_folder() -> bool:
    """OpenVINO looks for a file `.bin` in the current folder, and aborts the process if access is denied."""
    try:
        os.stat(".bin")  # noqa: PTH116
    except PermissionError:
        return False
    except OSError:
        pass
    return True


class Engines:
    """The engines of one set of weights, each opened on first use.

    Args:
        weights: the weights.
        choice: the engine for the CPU. On a GPU it is always Paddle, in float32.
    """

    def __init__(self, weights: WeightsFile, choice: Choice) -> None:
        self._weights = weights
        self._choice = choice
        self._lock = Lock()

    @cached_property
    def model(self) -> CLIP:
        """The Paddle model, a `paddle.nn.Layer`."""
        from ..models.factory import load_model  # Paddle takes seconds to import; compiled towers do without

        return load_model(self._weights)

    @cached_property
    def logit_scale(self) -> float:
        """The factor that cosines are multiplied by in the softmax."""
        opened = self._paddle if "_paddle" in vars(self) else self.get(use_gpu=False)
        return opened.logit_scale

    def get(self, use_gpu: bool) -> Engine:
        """The engine for the CPU, or for the GPU.

        Raises:
            RequestError: `use_gpu` is set, but Paddle was built without CUDA or there is no GPU.
        """
        with self._lock:
            if not use_gpu and self._choice.name != "paddle" and (engine := self._compiled):
                return engine
            self._paddle.use(use_gpu)
            return self._paddle

    @cached_property
    def _compiled(self) -> Engine | None:
        """The compiled towers; None, with a warning, if they cannot be compiled or cached."""
        from .compiled_engine import CompiledEngine

        name, precision, _ = self._choice
        text = self._weights.record.config.text

        def folder(again: bool) -> Path:
            return compiled_folder(self._weights, name, precision, again)

        try:
            return CompiledEngine(name, precision, folder, self._in_place, text)
        except (CompileError, OSError) as error:
            self._require_replaceable(error)
            return None

    def _in_place(self, error: Exception) -> Engine:
        """Paddle, as the replacement for a compiled tower that can neither be opened nor compiled again."""
        self._require_replaceable(error)
        with self._lock:
            self._paddle.use(False)
            return self._paddle

    def _require_replaceable(self, error: Exception) -> None:
        """Warn that Paddle replaces the compiled towers.

        Raises:
            CompileError: the precision is not float32, the only one that Paddle supports here.
        """
        name, precision = self._weights.record.name, self._choice.precision
        if precision != "float32":
            raise CompileError(
                f"{name} cannot be compiled for precision {precision!r}, and nothing else supports it: "
                f"{error}. Fix that, or leave precision at 'float32'"
            ) from error
        logger.warning("%s runs on Paddle in float32, which is slower: %s", name, error)

    @cached_property
    def _paddle(self) -> PaddleEngine:
        from .paddle_engine import PaddleEngine

        return PaddleEngine(self.model)
