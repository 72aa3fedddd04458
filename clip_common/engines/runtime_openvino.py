"""The compiled towers on OpenVINO, which leads on CPUs with AVX-512, and computes in bfloat16 where
they have that."""

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
    """OpenVINO, which reports each import to its makers and keeps an id in the home through a package that it
    also does without: that one is kept from it, not from whoever imports it otherwise."""
    reporter = "openvino_telemetry"
    if reporter in sys.modules:
        return import_module("openvino")
    sys.modules[reporter] = None  # type: ignore[assignment]  # Python's way to make an import fail
    try:
        return import_module("openvino")
    finally:
        del sys.modules[reporter]


openvino = _import_without_telemetry()

VERSION: str = openvino.__version__

_INTERVAL = 0.005  # seconds, in which a CPU copies some ten megabytes
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # of what a graph does not round


def compile_tower(source: Path, target: Path, precision: str) -> None:
    """Compile a graph for this machine and write it, with its weights as the kernels read them."""
    core = openvino.Core()
    settings = {**_settings(precision), "CACHE_MODE": "OPTIMIZE_SPEED"}
    compiled = core.compile_model(core.read_model(source), "CPU", settings)
    with target.open("wb") as file:
        stream = _IntoFile(file)
        compiled.export_model(stream)
        if stream.error:
            raise stream.error


class _IntoFile(io.BytesIO):
    """A file as the one kind of stream that OpenVINO writes to; itself it would keep the model in memory.

    Attributes:
        error: why a part could not be written; OpenVINO ignores that.
    """

    error: OSError | None = None

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def write(self, part: Any) -> int:
        """As of the file, like the others."""
        try:
            return self._file.write(part)
        except OSError as error:
            self.error = error
            raise

    def seek(self, *place: int) -> int:
        """OpenVINO completes the beginning at the end."""
        return self._file.seek(*place)

    def tell(self) -> int:
        """Where the next part goes."""
        return self._file.tell()


def open_tower(path: Path, precision: str) -> Callable[..., np.ndarray]:
    """What runs a tower that `compile_tower` wrote, in any thread, one call at a time."""
    return _Tower(path, precision)


class _Tower:
    def __init__(self, path: Path, precision: str) -> None:
        with path.open("rb") as file:
            # OpenVINO takes no read-only array, and writes to none. What it does not pack it reads here.
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
    """Give back what is read of a mapped file while it is read: most of it OpenVINO copies, packed for its
    kernels, and weights would be in memory twice. What is read again is read from the file again."""
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
    """What compiling and running share."""
    return {
        # Where the CPU has bfloat16 that is OpenVINO's own choice, for what it opens as well.
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads.count(),
        "ENABLE_CPU_PINNING": False,  # pinned to a core that another process wants, a thread waits for it
    }
