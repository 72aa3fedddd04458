"""The towers compiled for ONNX Runtime: once per weights, version and machine, kept in the cache.

`python -m clip_common.compiled NAME WEIGHTS FOLDER` does it, in a process of its own: exporting prints to
standard output, and takes several times the model's memory.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from filelock import FileLock

from .cache import cache_dir, digest_of, hash_stream, logger, sha256_of, touch
from .config import Pretrained, pretrained
from .errors import ClipError
from .weights import Weights, load_model

_VERSION = "1"  # of the towers and of this layout; part of the key
_KEPT = 8
_KEPT_BYTES = 8 << 30
_DAY = 24 * 3600  # seconds
_MANIFEST = "manifest.json"
_TOLERANCE = 1e-4  # of the largest number of a feature


class CompileError(ClipError):
    """The towers cannot be compiled here, or not be kept."""


def compiled_folder(record: Pretrained, weights: Weights) -> Path:
    """The folder of a module's compiled towers, compiled now if they are not there or not whole.

    Raises:
        CompileError: that cannot be done.
    """
    folder = _folder(record, weights)
    home = folder.parent
    if not _is_whole(folder):
        try:
            home.mkdir(parents=True, exist_ok=True)
            with FileLock(home / f"{folder.name}.lock"):
                if not _is_whole(folder):  # else another process was quicker
                    _compile(record, weights, folder)
        except OSError as error:
            raise CompileError(f"the cache {home} cannot be written ({error.strerror or error})") from error
        _prune(home, folder)
    touch(folder)
    return folder


def kept_folder(record: Pretrained, weights: Weights) -> Path | None:
    """The folder of a module's compiled towers; None where there is none yet."""
    folder = _folder(record, weights)
    return folder if folder.is_dir() else None


def _folder(record: Pretrained, weights: Weights) -> Path:
    return cache_dir() / "engines" / digest_of(_key(record, weights))[:32]


def logit_scale(folder: Path) -> float:
    """What cosines are multiplied by, of the weights that a folder was compiled from."""
    return json.loads((folder / _MANIFEST).read_text("utf-8"))["logit_scale"]


def _key(record: Pretrained, weights: Weights) -> str:
    """What compiled towers depend on: packed weights are for one processor's kernels."""
    runtime = importlib.metadata.version("onnxruntime")
    return json.dumps([_VERSION, record.name, str(record.config), weights.sha256, runtime, _processor()])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _is_whole(folder: Path) -> bool:
    try:
        files = json.loads((folder / _MANIFEST).read_text("utf-8"))["files"]
        return all(sha256_of(folder / name) == sha256 for name, sha256 in files.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _compile(record: Pretrained, weights: Weights, folder: Path) -> None:
    """Compile into a folder that appears only when it is whole."""
    logger.info("compiling %s for this machine, once", record.name)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    package = Path(__file__).resolve().parent
    command = [
        sys.executable,
        "-m",
        f"{package.name}.compiled",
        record.name,
        str(weights.path),
        str(temporary),
    ]
    paths = [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        manifest = json.loads((temporary / _MANIFEST).read_text("utf-8"))
        files = {}
        for file in temporary.glob("*.onnx*"):
            with file.open("rb") as stream:
                files[file.name] = hash_stream(stream)
        (temporary / _MANIFEST).write_text(json.dumps({**manifest, "files": files}), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        temporary.rename(folder)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()[-1:] or ["no message"]
        raise CompileError(f"compiling ended with status {error.returncode}: {said[0][:300]}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _prune(home: Path, used: Path) -> None:
    """Remove the folders that were longest unused, beyond a number and a size, and what kills left behind.

    A process that has one of them mapped goes on.
    """
    folders = [folder for folder in home.iterdir() if folder.is_dir()]
    folders.sort(key=lambda folder: (folder == used, folder.stat().st_mtime_ns), reverse=True)
    total = 0
    for place, folder in enumerate(folders):
        if folder.name.startswith("."):  # unfinished; in a day it is nobody's work any more
            if time.time() - folder.stat().st_mtime > _DAY:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        total += sum(file.stat().st_size for file in folder.iterdir())
        if folder != used and (place >= _KEPT or total > _KEPT_BYTES):
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Compile one module's towers, and check that they give what the model gives: what `_compile` starts."""
    from .engine_onnx import compile_session, open_session, run
    from .export import write_onnx
    from .towers import probe, towers

    name, weights, folder = sys.argv[1:]
    model = load_model(pretrained(name), Weights(Path(weights), ""))
    for tower, (layer, spec) in towers(model).items():
        target = Path(folder) / f"{tower}.onnx"
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            compile_session(write_onnx(layer, spec, Path(scratch) / target.name), target)
        given, expected = probe(model, tower)
        found = run(open_session(target), given)
        if not np.abs(found - expected).max() <= _TOLERANCE * np.abs(expected).max():
            raise SystemExit(f"the compiled {tower} tower does not give what the model gives")
    scale = float(np.exp(model.logit_scale.numpy()))
    (Path(folder) / _MANIFEST).write_text(json.dumps({"logit_scale": scale}), "utf-8")


if __name__ == "__main__":
    main()
