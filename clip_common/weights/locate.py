"""Locate the weights of a module: find or download, verify, and convert once.

The order is: the file that the user names, the module's own bundle, the cache, a download. Downloaded weights
are cached as safetensors in OpenAI's names, with the tensors' original types, and a file with their hash.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from filelock import FileLock

from ..config import PRETRAINED, Pretrained
from ..errors import WeightsError
from ..system.cache import best_effort, cache_dir, hub_home, sha256_of
from ..system.file_names import user_path
from ..system.log import logger
from ..system.output import reason_of, write_text
from ..system.scratch import scratch_folder_of_process
from .convert import convert
from .model_settings import settle
from .weights_file import WeightsFile


def store_dir() -> Path:
    """The folder of weights in the cache, where users may also put downloaded files."""
    return cache_dir() / "weights"


def find(
    record: Pretrained, weights: str | Path | None = None, module_dir: Path | None = None
) -> WeightsFile:
    """Find the weights of a module, or download them.

    Args:
        record: the module's record.
        weights: a file, or the tag of published weights; default: the module's own.
        module_dir: the module's folder, which may contain them.

    Raises:
        WeightsError: the weights are not available; the message says which file to put where.
    """
    local = find_local(record, weights, module_dir)
    return local or fetch(tagged(record, weights) or record)


def tagged(record: Pretrained, weights: str | Path | None) -> Pretrained | None:
    """The record with the published weights of this tag; None if it is not a tag."""
    for source in record.published:
        if source.tag == weights:
            return record.with_weights(source)
    return None


def find_local(
    record: Pretrained, weights: str | Path | None = None, module_dir: Path | None = None
) -> WeightsFile | None:
    """Find the weights of a module on this machine, see `find`; None if they are not here.

    Raises:
        WeightsError: the named file does not exist, or a file in the cache has the wrong hash.

    Examples:
        >>> from clip_common.config import pretrained
        >>> find_local(pretrained("clip_mini")).path.name
        'clip_mini.safetensors'
    """
    chosen = record if weights is None else tagged(record, weights)
    if chosen is None:
        if not isinstance(weights, (str, os.PathLike)):
            raise WeightsError(f"weights is a {type(weights).__name__}, expected a file's path or a tag")
        path = user_path(weights)
        if (fault := _fault(path)) is not None:
            tags = ", ".join(source.tag for source in record.published)
            raise WeightsError(
                f"no weights file at {path}{fault}, and {record.name} has no weights of that name, only "
                f"{tags}"
            )
        return _of_own(record, path)
    if chosen.weights is record.weights:
        for folder in _bundles(record, module_dir):
            path = folder / f"{record.name}.safetensors"
            if _is_there(path):
                return _of_own(record, path)
    return _stored(chosen, store_dir()) or _official_file(chosen, store_dir())


def require_local(record: Pretrained, weights: str | Path | None = None) -> WeightsFile:
    """Find the weights of a module on this machine, without a download, see `find_local`.

    Raises:
        WeightsError: they are not here; the message says which file to put where.
    """
    found = find_local(record, weights)
    if found is None:
        raise WeightsError(manual_download_hint(tagged(record, weights) or record))
    return found


def _of_own(record: Pretrained, path: Path) -> WeightsFile:
    """A file of any origin: its settings must be determined."""
    sha256 = sha256_of(path)
    return WeightsFile(path, sha256, settle(record, path, sha256))


def _bundles(record: Pretrained, module_dir: Path | None) -> list[Path]:
    """Folders that may contain a module's own weights: its own folder, the packed archive that contains this
    package, the source tree, and the installed module."""
    around = Path(__file__).resolve().parent.parent.parent
    own = [module_dir] if module_dir else []
    return [*own, around, around / "modules" / record.name, hub_home() / "modules" / record.name]


def _stored(record: Pretrained, folder: Path) -> WeightsFile | None:
    """The converted weights in a folder; None if there are none, or they lack the hash that `fetch` noted."""
    path = folder / _stored_name(record)
    if not _is_there(path):
        return None
    found = sha256_of(path)
    note = _note(path)
    if note.is_file() and note.read_text("utf-8", "replace").split()[:1] != [found]:
        logger.warning("%s is damaged and is not used", path)
        return None
    return _of_own(record, path) if _is_default(record) else WeightsFile(path, found, record)


def _is_default(record: Pretrained) -> bool:
    """Whether the weights of a record are the default weights of its module."""
    return record.name not in PRETRAINED or record.weights.tag == PRETRAINED[record.name].weights.tag


def _stored_name(record: Pretrained) -> str:
    return (
        f"{record.name}.safetensors"
        if _is_default(record)
        else f"{record.name}.{record.weights.tag}.safetensors"
    )


def _is_there(path: Path) -> bool:
    """Whether a readable file exists; warns about one that cannot be read."""
    fault = _fault(path)
    if fault:
        logger.warning("%s is not used%s", path, fault)
    return fault is None


def _fault(path: Path) -> str | None:
    """None if a path is a readable file; else the reason, or an empty string if there is no file."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb"):
            return None
    except OSError as error:
        return f": {error.strerror or error}"


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _official_file(record: Pretrained, folder: Path) -> WeightsFile | None:
    """A published file that the user put into a folder, if there is one."""
    source = record.weights
    path = folder / source.kept_as(record.name)
    if not _is_there(path):
        return None
    found = sha256_of(path)
    if source.sha256 not in (found, None):
        raise WeightsError(f"{path} has sha256 {found}, the published file has {source.sha256}: replace it")
    return WeightsFile(path, found, record)


def fetch(record: Pretrained, mirror: str | None = None) -> WeightsFile:
    """Download a module's published weights, verify them, and store them as safetensors.

    If the cache is not writable, they are stored in a temporary folder for this process.

    Args:
        record: the module's record.
        mirror: base address of a mirror; default: CLIP_HUB_MIRROR, or the published addresses.

    Raises:
        WeightsError: they cannot be downloaded; the message says which file to put where.
    """
    from . import download  # takes 0.1 s to import

    source = record.weights
    try:
        if source.sha256 is None:
            raise WeightsError(
                f"{source.file} is not downloaded, because its hash is not known here: "
                f"take it from {' or '.join(download.published_addresses(source))} yourself"
            )
        urls = download.addresses(source, mirror, source.kept_as(record.name))
        if not urls:
            raise WeightsError(f"{record.name}'s weights come with its module and are published nowhere else")
        with best_effort(source.file):
            return _fetch_into(store_dir(), record, urls)
        return _fetch_into(scratch_folder_of_process(), record, urls)
    except WeightsError as error:
        raise WeightsError(f"{error}. {manual_download_hint(record)}") from error
    except OSError as error:
        place, reason = tempfile.gettempdir(), reason_of(error)  # the cache was tried before
        raise WeightsError(
            f"cannot store {source.file} in {place}: {reason}. {manual_download_hint(record)}"
        ) from error


def _fetch_into(folder: Path, record: Pretrained, urls: list[str]) -> WeightsFile:
    from . import download

    folder.mkdir(parents=True, exist_ok=True)
    sha256 = record.weights.sha256
    assert sha256, f"{record.weights.file} has no known hash"
    with FileLock(folder / f"{_stored_name(record).removesuffix('.safetensors')}.lock"):
        if stored := _stored(record, folder):  # another process was quicker
            return stored
        # Under a temporary name: it is removed after conversion, so no other process may use it.
        part = folder / f"{record.weights.kept_as(record.name)}.part"
        download.download(urls, part, sha256)
        path = folder / _stored_name(record)
        convert(part, path)
        sha256 = sha256_of(path)
        write_text(_note(path), f"{sha256}  {path.name}\n")
        part.unlink()
        return WeightsFile(path, sha256, record)


def manual_download_hint(record: Pretrained) -> str:
    """Instructions for when weights cannot be downloaded: which file to put where."""
    source = record.weights
    kept_as = source.kept_as(record.name)
    under = "" if kept_as == source.file else f" as {kept_as}"
    place = f"put that file into {store_dir()}{under}, or name it with weights= or --weights"
    if source.sha256 is None:
        return f"{record.name} needs {source.file}: {place}, beside the configuration published with it"
    return (
        f"{record.name} needs {source.file} (sha256 {source.sha256}): {place}, "
        "or set CLIP_HUB_MIRROR to a mirror of the published files"
    )
