"""The compiled towers: once per weights, runtime, precision and machine, kept in the cache.

`python -m clip_common.compiled NAME WEIGHTS RUNTIME PRECISION FOLDER` does it, in a process of its
own: exporting prints to standard output, and takes several times the model's memory.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from filelock import FileLock

from .config import Pretrained, pretrained
from .errors import ClipError
from .system import cpu
from .system.cache import cache_dir, digest_of, hash_stream, logger, sha256_of, touch
from .weights.locate import Weights, load_model

_VERSION = "3"  # of the towers and of this layout; part of the key
_KEPT = 8
_KEPT_BYTES = 8 << 30
_DAY = 24 * 3600  # seconds
_MANIFEST = "manifest.json"
_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}  # of the largest number of a feature


class CompileError(ClipError):
    """The towers cannot be compiled here, or not be kept."""


def file_of(tower: str) -> str:
    """The file of a tower, "image" or "text", in such a folder; another may be beside it."""
    return f"{tower}.compiled"


def compiled_folder(record: Pretrained, weights: Weights, runtime: str, precision: str = "float32") -> Path:
    """The folder of a module's compiled towers, compiled now if they are not there or not whole.

    Args:
        runtime: "onnxruntime" or "openvino".
        precision: what it computes in.

    Raises:
        CompileError: that cannot be done.
    """
    folder = _folder(record, weights, runtime, precision)
    home = folder.parent
    if not _is_whole(folder):
        try:
            home.mkdir(parents=True, exist_ok=True)
            with FileLock(home / f"{folder.name}.lock"):
                if not _is_whole(folder):  # else another process was quicker
                    _compile(record, weights, runtime, precision, folder)
        except OSError as error:
            raise CompileError(f"the cache {home} cannot be written ({error.strerror or error})") from error
        _prune(home, folder)
    touch(folder)
    return folder


def kept_folder(record: Pretrained, weights: Weights, runtime: str, precision: str) -> Path | None:
    """The folder of a module's compiled towers; None where there is none yet."""
    folder = _folder(record, weights, runtime, precision)
    return folder if folder.is_dir() else None


def _folder(record: Pretrained, weights: Weights, runtime: str, precision: str) -> Path:
    # Packed weights are for one version's kernels, and one processor's.
    version, machine = importlib.metadata.version(runtime), cpu.identity()
    key = [_VERSION, record.name, str(record.config), weights.sha256, runtime, version, precision, machine]
    return cache_dir() / "engines" / digest_of(json.dumps(key))[:32]


def logit_scale(folder: Path) -> float:
    """What cosines are multiplied by, of the weights that a folder was compiled from."""
    return json.loads((folder / _MANIFEST).read_text("utf-8"))["logit_scale"]


def _is_whole(folder: Path) -> bool:
    try:
        files = json.loads((folder / _MANIFEST).read_text("utf-8"))["files"]
        return all(sha256_of(folder / name) == sha256 for name, sha256 in files.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _compile(record: Pretrained, weights: Weights, runtime: str, precision: str, folder: Path) -> None:
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
        runtime,
        precision,
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
        for file in temporary.glob("*.compiled*"):
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
    from .engine_compiled import runtime
    from .models.export import write_onnx
    from .towers import probe, towers

    name, weights, runtime_name, precision, folder = sys.argv[1:]
    compiler = runtime(runtime_name)
    model = load_model(pretrained(name), Weights(Path(weights), ""))
    for tower, (layer, specs) in towers(model).items():
        target = Path(folder) / file_of(tower)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            graph = write_onnx(layer, specs, Path(scratch) / f"{tower}.onnx")
            compiler.compile_tower(graph, target, precision)
        given, expected = probe(model, tower)
        found = compiler.open_tower(target, precision)(*given)
        if not np.abs(found - expected).max() <= _TOLERANCE[precision] * np.abs(expected).max():
            raise SystemExit(f"the compiled {tower} tower does not give what the model gives")
    scale = float(np.exp(model.logit_scale.numpy()))
    (Path(folder) / _MANIFEST).write_text(json.dumps({"logit_scale": scale}), "utf-8")


if __name__ == "__main__":
    main()
