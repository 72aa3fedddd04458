"""Compiled towers on OpenVINO, the fastest runtime on CPUs with AVX-512; supports bfloat16 and int8."""

from __future__ import annotations

import contextlib
import io
import mmap
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from threading import Event, Lock, Thread
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from ..system import threads


def _import_without_telemetry() -> ModuleType:
    """Import OpenVINO without its optional package `openvino_telemetry`.

    That package reports each import to the vendor and stores an id in the home folder. It stays available to
    other code that imports it.
    """
    reporter = "openvino_telemetry"
    if reporter in sys.modules:
        return import_module("openvino")
    sys.modules[reporter] = None  # type: ignore[assignment]  # makes `import openvino_telemetry` fail
    try:
        return import_module("openvino")
    finally:
        del sys.modules[reporter]


openvino = _import_without_telemetry()

VERSION: str = openvino.__version__

_INTERVAL = 0.005  # seconds, in which a CPU copies about ten megabytes
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # of operators that are not quantised


def compile_tower(source: Path, target: Path, precision: str) -> None:
    """Compile a graph for this CPU and write it, with its weights in the layout of the kernels."""
    core = openvino.Core()
    settings = {**_settings(precision), "CACHE_MODE": "OPTIMIZE_SPEED"}
    compiled = core.compile_model(core.read_model(source), "CPU", settings)
    with target.open("wb") as file:
        stream = _IntoFile(file)
        compiled.export_model(stream)
        if stream.error:
            raise stream.error


class _IntoFile(io.BytesIO):
    """Passes writes on to a file. OpenVINO writes to `BytesIO` only, which would hold the model in memory.

    Attributes:
        error: the first error of a write, which OpenVINO ignores.
    """

    error: OSError | None = None

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def write(self, part: Any) -> int:
        """Write to the file, and remember an error."""
        try:
            return self._file.write(part)
        except OSError as error:
            self.error = error
            raise

    def seek(self, *place: int) -> int:
        """Seek in the file: OpenVINO writes the header last."""
        return self._file.seek(*place)

    def tell(self) -> int:
        """The position in the file."""
        return self._file.tell()


def open_tower(path: Path, precision: str) -> Callable[..., np.ndarray]:
    """Open a tower written by `compile_tower`: a thread-safe function of its inputs."""
    return _Tower(path, precision)


class _Tower:
    def __init__(self, path: Path, precision: str) -> None:
        with path.open("rb") as file:
            # Copy-on-write, because OpenVINO rejects read-only arrays, although it never writes to them.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._weights = openvino.Tensor(np.frombuffer(mapped, np.uint8), shared_memory=True)
        with _pages_given_back(mapped):
            tower = openvino.Core().import_model(self._weights, "CPU", _settings(precision))
        self._request, self._one_at_a_time = tower.create_infer_request(), Lock()
        self._packing: contextlib.AbstractContextManager[None] = _pages_given_back(mapped)

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        with self._one_at_a_time, self._packing:
            self._packing = contextlib.nullcontext()  # some weights are packed by the first call
            return self._request.infer(dict(enumerate(inputs)), share_inputs=True)[0]


@contextlib.contextmanager
def _pages_given_back(mapped: mmap.mmap) -> Iterator[None]:
    """Release the pages of a mapped file while it is being read.

    OpenVINO copies most weights, packed for its kernels, so they would be in memory twice. Pages that are
    read again are loaded from the file again.
    """
    done = Event()

    def give_back() -> None:
        while not done.wait(_INTERVAL):
            mapped.madvise(mmap.MADV_DONTNEED)

    thread = Thread(target=give_back, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        mapped.madvise(mmap.MADV_DONTNEED)


def _settings(precision: str) -> dict[str, Any]:
    """Settings for compiling and running."""
    return {
        # On CPUs with bfloat16, OpenVINO would use it by default.
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads.count(),
        "ENABLE_CPU_PINNING": False,  # a pinned thread has to wait if another process uses its core
    }
