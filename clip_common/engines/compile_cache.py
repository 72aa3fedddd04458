"""The cache of compiled towers, one folder per weights, runtime, precision and CPU.

`compile_worker.py` compiles in a separate process: that takes twice the memory of the model, and a crash in a
runtime's compiler ends only that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from ..errors import ClipError
from ..system import cpu
from ..system.cache import cache_dir, digest_of, source_digest, touch, versions
from ..system.log import logger
from ..system.output import reason_of, sync
from ..weights.weights_file import WeightsFile
from . import calibration
from .artifacts import MANIFEST, NO_ROOM, is_whole
from .compiled_engine import runtime as runtime_of

# Compiled towers depend on: code of this package, and the library that writes the graphs.
_SOURCE = ("engines", "weights")
_MAKERS = ("onnx",)
_KEPT = 8
_KEPT_BYTES = 8 << 30
_DAY = 24 * 3600  # seconds
_HALF_HOUR = 1800  # seconds


class CompileError(ClipError):
    """The towers cannot be compiled, or cannot be written to the cache."""


def compiled_folder(
    weights: WeightsFile, runtime: str, precision: str = "float32", again: bool = False
) -> Path:
    """The folder of a module's compiled towers; compiles them if they are missing or damaged.

    Args:
        weights: the weights.
        runtime: "onnxruntime" or "openvino".
        precision: compute type.
        again: always compile, because the existing towers cannot be opened.

    Raises:
        CompileError: compiling failed, or the cache cannot be written.
    """
    folder = _folder(weights, runtime, precision)
    home = folder.parent
    if again or not is_whole(folder):
        try:
            home.mkdir(parents=True, exist_ok=True)
            with FileLock(home / f"{folder.name}.lock"):
                if again or not is_whole(folder):  # else another process was quicker
                    _compile(weights, runtime, precision, folder)
        except OSError as error:
            raise _unwritable(home, reason_of(error)) from error
        _prune(home, folder)
    touch(folder)
    return folder


def kept_folder(weights: WeightsFile, runtime: str, precision: str) -> Path | None:
    """The folder of a module's compiled towers; None if they have not been compiled yet."""
    folder = _folder(weights, runtime, precision)
    return folder if folder.is_dir() else None


def _folder(weights: WeightsFile, runtime: str, precision: str) -> Path:
    # Packed weights depend on the kernels of one version of the runtime, and on the CPU.
    record = weights.record  # its config includes the activation
    made_for = [runtime, runtime_of(runtime).VERSION, precision, cpu.identity()]
    made_by = [source_digest(*_SOURCE), *versions(*_MAKERS)]
    key = [record.name, str(record.config), weights.sha256, *made_for, *made_by]
    if precision == "int8":
        key += [str(record.preprocessing), calibration.digest()]
    return cache_dir() / "engines" / digest_of(json.dumps(key))[:32]


def _compile(weights: WeightsFile, runtime: str, precision: str, folder: Path) -> None:
    """Compile into a temporary folder, and rename it when it is complete. The caller holds the lock."""
    logger.info("compiling %s for this machine, once", weights.record.name)
    for left in folder.parent.glob(f".{folder.name}.*"):  # left by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)).absolute()
    try:
        _run_worker(weights, runtime, precision, temporary)
        for file in temporary.iterdir():
            file.chmod(0o644)
        sync(temporary / MANIFEST)  # the worker has synced the others
        temporary.chmod(0o755)  # other users may read the cache
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        temporary.rename(folder)
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"compiling did not end within {error.timeout / 60:.0f} minutes") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()[-1:] or ["no message"]
        if error.returncode == NO_ROOM:
            raise _unwritable(folder.parent, said[0]) from error
        raise CompileError(f"compiling ended with status {error.returncode}: {said[0][:300]}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _run_worker(weights: WeightsFile, runtime: str, precision: str, target: Path) -> None:
    """Run `compile_worker.py`, which writes the towers into `target`."""
    record, package = weights.record, Path(__file__).resolve().parent.parent
    scratch = target / "scratch"  # inside, so that it is removed with `target` after a kill
    scratch.mkdir()
    command = [
        sys.executable,
        "-m",
        f"{package.name}.engines.compile_worker",
        record.name,
        json.dumps([record.config.activation, asdict(record.preprocessing)]),
        str(weights.path.absolute()),
        weights.sha256,
        runtime,
        precision,
        str(target),
    ]
    subprocess.run(
        command,
        check=True,
        timeout=_HALF_HOUR * (1 + weights.path.stat().st_size / (1 << 30)),  # twenty times what it takes
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=scratch,  # `-m` imports from the current folder first, which must not be the user's
        env={**os.environ, "PYTHONPATH": _search_path(package.parent), "TMPDIR": str(scratch)},
    )
    shutil.rmtree(scratch)


def _unwritable(home: Path, reason: str) -> CompileError:
    return CompileError(
        f"the cache {home} cannot be written ({reason}); set CLIP_HUB_CACHE to a folder that can be written"
    )


def _search_path(root: Path) -> str:
    """PYTHONPATH for a process in another folder: the root of this package, then the user's entries.

    Empty entries, which mean the current folder and mostly occur by accident, are left out.
    """
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return os.pathsep.join([str(root), *(str(Path(entry).absolute()) for entry in given)])


def _prune(home: Path, used: Path) -> None:
    """Remove the least recently used folders beyond a number and a size, and leftovers of killed processes.

    A process that has mapped a removed folder keeps working; one that opens a file later compiles it again.
    """
    folders = []
    for folder in home.iterdir():
        with contextlib.suppress(OSError):  # another process may prune or compile, too
            if folder.is_dir():
                size = sum(file.stat().st_size for file in folder.iterdir())
                folders.append((folder == used, folder.stat().st_mtime, size, folder))
    total = 0
    for place, (is_used, changed, size, folder) in enumerate(sorted(folders, reverse=True)):
        if folder.name.startswith("."):  # unfinished: after a day, its process must have been killed
            if time.time() - changed > _DAY:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        total += size
        if not is_used and (place >= _KEPT or total > _KEPT_BYTES):
            shutil.rmtree(folder, ignore_errors=True)
