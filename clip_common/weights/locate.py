"""A module's weights: found, verified, converted once, loaded strictly.

Looked for in this order: the file a user names, the module's own bundle, the cache, a download. The store
is safetensors in OpenAI's names with each tensor in its source's type, and a record beside it.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ..config import PRETRAINED, ClipConfig, Pretrained, WeightsSource
from ..errors import WeightsError
from ..system.cache import atomic_file, cache_dir, costs_only_speed, logger, sha256_of
from . import download
from .class_head import read_classes
from .layouts import CLASS_VECTORS, State, identify, infer_config, to_openai
from .readers import read_state, write_safetensors

if TYPE_CHECKING:
    from ..models.clip import CLIP


@dataclass(frozen=True)
class Weights:
    """A weights file that is there, and the hash by which what is computed from it is known."""

    path: Path
    sha256: str


def store_dir() -> Path:
    """The cache's folder of weights: also the place to put an official file by hand."""
    return cache_dir() / "weights"


def find(record: Pretrained, weights: str | Path | None = None, module_dir: Path | None = None) -> Weights:
    """The weights of a module, downloaded if they are nowhere else.

    Raises:
        WeightsError: they cannot be had; the message says which file to put where.
    """
    local = find_local(record, weights, module_dir)
    return local or fetch(record)


def find_local(
    record: Pretrained, weights: str | Path | None = None, module_dir: Path | None = None
) -> Weights | None:
    """The weights of a module if they are on this machine."""
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise WeightsError(f"no weights file at {path}")
        return Weights(path, sha256_of(path))
    for folder in _bundles(record, module_dir):
        path = folder / f"{record.name}.safetensors"
        if path.is_file():
            return Weights(path, sha256_of(path))
    return _stored(record, store_dir()) or _official_file(record.weights, store_dir())


def _bundles(record: Pretrained, module_dir: Path | None) -> list[Path]:
    """Folders that may carry a module's own weights: its own, that of a packed archive around this
    package, the source tree's, the installed module's."""
    around = Path(__file__).resolve().parent.parent.parent
    hub_home = Path(os.environ.get("HUB_HOME") or Path.home() / ".paddlehub")
    own = [module_dir] if module_dir else []
    return [*own, around, around / "modules" / record.name, hub_home / "modules" / record.name]


def _stored(record: Pretrained, folder: Path) -> Weights | None:
    """The converted weights in a folder; where `fetch` noted their hash, if they still have it."""
    path = folder / f"{record.name}.safetensors"
    if not path.is_file():
        return None
    found = sha256_of(path)
    note = _note(path)
    if note.is_file() and note.read_text("utf-8", "replace").split()[:1] != [found]:
        logger.warning("%s is damaged and is not used", path)
        return None
    return Weights(path, found)


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _official_file(source: WeightsSource, folder: Path) -> Weights | None:
    """A published file that somebody put into a folder by hand."""
    path = folder / source.file
    if not path.is_file():
        return None
    found = sha256_of(path)
    if found != source.sha256:
        raise WeightsError(f"{path} has sha256 {found}, the published file has {source.sha256}: replace it")
    return Weights(path, found)


def fetch(record: Pretrained, mirror: str | None = None) -> Weights:
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
        with costs_only_speed(f"{record.weights.file}"):
            return _fetch_into(store_dir(), record, urls)
        temporary = Path(tempfile.mkdtemp(prefix="clip_hub_"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return _fetch_into(temporary, record, urls)
    except WeightsError as error:
        raise WeightsError(f"{error}. {by_hand(record)}") from error
    except OSError as error:
        raise WeightsError(f"cannot store {record.weights.file}: {error}. {by_hand(record)}") from error


def _fetch_into(folder: Path, record: Pretrained, urls: list[str]) -> Weights:
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
        return Weights(path, sha256)


def by_hand(record: Pretrained) -> str:
    """What to do where weights cannot be downloaded: which file to put where."""
    source = record.weights
    return (
        f"{record.name} needs {source.file} (sha256 {source.sha256}): put that file into {store_dir()}, "
        "or name it with weights= or --weights, or set CLIP_HUB_MIRROR to a mirror of OpenAI's files"
    )


def convert(source: Path, target: Path) -> State:
    """Write any supported weights file as safetensors in OpenAI's names, with its record.

    Returns:
        The tensors written.

    Raises:
        WeightsError: the source cannot be read or is not of a known layout.
    """
    if target.suffix != ".safetensors":
        raise WeightsError(f"{target}: weights are written as .safetensors")
    state = read_openai(source)
    _require_whole(state, source)
    sha256 = sha256_of(source)
    note: dict[str, Any] = {
        "layout": "openai",
        "source": source.name.removesuffix(".part"),
        "source_sha256": sha256,
    }
    for record in PRETRAINED.values():
        if record.weights.sha256 == sha256:
            note |= {"module": record.name, "licence": record.weights.licence}
            note["preprocessing"] = json.dumps(asdict(record.preprocessing))
    classes = read_classes(source, state["text_projection"].shape[1])
    if classes:
        note["classes"] = classes.names
    with atomic_file(target) as temporary:
        own = {CLASS_VECTORS: classes.vectors} if classes else {}
        write_safetensors(state | own, temporary, note)
    return state


def _require_whole(state: State, path: Path) -> None:
    """Check that a state that is, by its shapes, of a known architecture holds all of its tensors.

    Raises:
        WeightsError: naming the tensors that are missing, extra or misshapen.
    """
    try:
        name = identify(state) or infer_config(state).name
    except KeyError as error:
        raise WeightsError(f"{path}: not a whole CLIP, tensor {error} is missing") from error
    except (IndexError, ValueError, TypeError, ZeroDivisionError) as error:
        raise WeightsError(f"{path}: not a CLIP, a tensor has the wrong shape ({error})") from error
    known = next((record.config for record in PRETRAINED.values() if record.config.name == name), None)
    if known is None:
        return
    try:
        _empty_model(known).require(state)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def read_openai(path: Path) -> State:
    """A file's tensors in OpenAI's names and orientation, each in its type.

    Raises:
        WeightsError: naming the file, which cannot be read or is not of a known layout.
    """
    try:
        return to_openai(read_state(path))
    except WeightsError as error:
        message = str(error)
        raise WeightsError(message if str(path) in message else f"{path}: {message}") from error


def load_model(record: Pretrained, weights: Weights) -> CLIP:
    """Build a module's model and fill it, strictly. Eval mode, float32.

    Raises:
        WeightsError: naming the file, and the tensors that do not fit.
    """
    from ..models.dynamic_graph import dynamic_graph

    state = read_openai(weights.path)
    with dynamic_graph():
        model = _empty_model(record.config)
        try:
            model.load_openai(state)
        except WeightsError as error:
            raise WeightsError(f"{weights.path}: {error}") from error
        model.eval()
    return model


def _empty_model(config: ClipConfig) -> CLIP:
    """A model whose weights are not set, which takes no time."""
    import paddle

    from ..models.clip import CLIP
    from ..models.dynamic_graph import dynamic_graph

    with dynamic_graph(), paddle.LazyGuard():
        return CLIP(config)
