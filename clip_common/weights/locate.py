"""A module's weights: found, verified, converted once, loaded strictly.

Looked for in this order: the file a user names, the module's own bundle, the cache, a download. The store
is safetensors in OpenAI's names with each tensor in its source's type, and a record beside it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from ..config import Pretrained, WeightsSource
from ..errors import WeightsError
from ..system.cache import atomic_file, best_effort, cache_dir, home, sha256_of
from ..system.log import logger
from ..system.names import is_file, user_path
from . import download
from .convert import convert
from .file import WeightsFile


def store_dir() -> Path:
    """The cache's folder of weights: also the place to put an official file by hand."""
    return cache_dir() / "weights"


def find(
    record: Pretrained, weights: str | Path | None = None, module_dir: Path | None = None
) -> WeightsFile:
    """The weights of a module, downloaded if they are nowhere else.

    Raises:
        WeightsError: they cannot be had; the message says which file to put where.
    """
    local = find_local(record, weights, module_dir)
    return local or fetch(record)


def find_local(
    record: Pretrained, weights: str | Path | None = None, module_dir: Path | None = None
) -> WeightsFile | None:
    """The weights of a module if they are on this machine.

    Raises:
        WeightsError: the file that is named is not there, or a file in the cache is not the published one.

    Example:
        >>> from clip_common.config import pretrained
        >>> find_local(pretrained("clip_mini")).path.name
        'clip_mini.safetensors'
    """
    if weights is not None:
        if not isinstance(weights, (str, os.PathLike)):
            raise WeightsError(f"weights is a {type(weights).__name__}, expected a file's path")
        path = user_path(weights)
        if not is_file(path):
            raise WeightsError(f"no weights file at {path}")
        return WeightsFile(path, sha256_of(path))
    for folder in _bundles(record, module_dir):
        path = folder / f"{record.name}.safetensors"
        if path.is_file():
            return WeightsFile(path, sha256_of(path))
    return _stored(record, store_dir()) or _official_file(record.weights, store_dir())


def hub_home() -> Path:
    """PaddleHub's home, where `hub install` puts modules."""
    return Path(os.environ.get("HUB_HOME") or home() / ".paddlehub")


def _bundles(record: Pretrained, module_dir: Path | None) -> list[Path]:
    """Folders that may carry a module's own weights: its own, that of a packed archive around this
    package, the source tree's, the installed module's."""
    around = Path(__file__).resolve().parent.parent.parent
    own = [module_dir] if module_dir else []
    return [*own, around, around / "modules" / record.name, hub_home() / "modules" / record.name]


def _stored(record: Pretrained, folder: Path) -> WeightsFile | None:
    """The converted weights in a folder; where `fetch` noted their hash, if they still have it."""
    path = folder / f"{record.name}.safetensors"
    if not path.is_file():
        return None
    found = sha256_of(path)
    note = _note(path)
    if note.is_file() and note.read_text("utf-8", "replace").split()[:1] != [found]:
        logger.warning("%s is damaged and is not used", path)
        return None
    return WeightsFile(path, found)


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _official_file(source: WeightsSource, folder: Path) -> WeightsFile | None:
    """A published file that somebody put into a folder by hand."""
    path = folder / source.file
    if not path.is_file():
        return None
    found = sha256_of(path)
    if found != source.sha256:
        raise WeightsError(f"{path} has sha256 {found}, the published file has {source.sha256}: replace it")
    return WeightsFile(path, found)


def fetch(record: Pretrained, mirror: str | None = None) -> WeightsFile:
    """Download a module's published weights, verify them, and store them as safetensors.

    Where the cache cannot be written they go to a temporary folder, for this process alone.

    Raises:
        WeightsError: they cannot be had; the message says which file to put where.
    """
    urls = download.addresses(record.weights, mirror)
    try:
        if not urls:
            raise WeightsError(
                f"{record.name}'s weights travel with its module and are published nowhere else"
            )
        with best_effort(f"{record.weights.file}"):
            return _fetch_into(store_dir(), record, urls)
        temporary = Path(tempfile.mkdtemp(prefix="clip_hub_"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return _fetch_into(temporary, record, urls)
    except WeightsError as error:
        raise WeightsError(f"{error}. {manual_download_hint(record)}") from error
    except OSError as error:
        raise WeightsError(
            f"cannot store {record.weights.file}: {error}. {manual_download_hint(record)}"
        ) from error


def _fetch_into(folder: Path, record: Pretrained, urls: list[str]) -> WeightsFile:
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{record.name}.lock"):
        if stored := _stored(record, folder):  # another process was quicker
            return stored
        # Not under its own name: another process would take it, and it is about to be removed.
        part = folder / f"{record.weights.file}.part"
        download.download(urls, part, record.weights.sha256)
        path = folder / f"{record.name}.safetensors"
        convert(part, path)
        sha256 = sha256_of(path)
        with atomic_file(_note(path)) as temporary:
            temporary.write_text(f"{sha256}  {path.name}\n", "utf-8")
        part.unlink()
        return WeightsFile(path, sha256)


def manual_download_hint(record: Pretrained) -> str:
    """What to do where weights cannot be downloaded: which file to put where."""
    source = record.weights
    return (
        f"{record.name} needs {source.file} (sha256 {source.sha256}): put that file into {store_dir()}, "
        "or name it with weights= or --weights, or set CLIP_HUB_MIRROR to a mirror of OpenAI's files"
    )
