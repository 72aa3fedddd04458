"""Convert any supported weights file to safetensors in OpenAI's names, with a record of its origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import PRETRAINED, Pretrained
from ..errors import WeightsError
from ..system.cache import sha256_of
from ..system.output import atomic_file
from .class_head import read_classes
from .model_settings import known_settings, note_of
from .schema import expected_config, expected_shapes, require_match
from .tensor_names import State
from .weights_file import read_openai, write_safetensors


def convert(source: Path, target: Path) -> State:
    """Convert any supported weights file to safetensors in OpenAI's names, with its record.

    Returns:
        The tensors written.

    Raises:
        WeightsError: the source cannot be read, is incomplete, or has an unknown layout.
    """
    if target.suffix != ".safetensors":
        raise WeightsError(f"{target}: weights are written as .safetensors")
    if source.exists() and target.exists() and target.samefile(source):
        raise WeightsError(f"{target}: is the file to convert, which would be replaced: choose another name")
    state = read_openai(source)
    record = _require_whole(state, source)
    sha256 = sha256_of(source)
    note: dict[str, Any] = {
        "layout": "openai",
        "source": source.name.removesuffix(".part"),
        "source_sha256": sha256,
    }
    if published := _published(sha256):
        note |= {"module": published.name, "licence": published.weights.licence, **note_of(published)}
    elif settled := record and known_settings(record, source, sha256):
        note |= note_of(settled)
    classes = read_classes(source, state["text_projection"].shape[1])
    with atomic_file(target) as temporary:
        if classes:
            write_safetensors(state | classes.tensors(), temporary, note | classes.note())
        else:
            write_safetensors(state, temporary, note)
    return state


def _published(sha256: str) -> Pretrained | None:
    """The record of the module that a file was published for, with this file as its weights; or None."""
    for record in PRETRAINED.values():
        for source in record.published:
            if source.sha256 == sha256:
                return record.with_weights(source)
    return None


def _require_whole(state: State, path: Path) -> Pretrained | None:
    """Determine the architecture of a state by its shapes, and check that it is complete.

    Returns:
        The record of a module of that architecture, if there is one.

    Raises:
        WeightsError: tensors are missing, extra or of the wrong shape; the message names them.
    """
    try:
        config = expected_config(state)
    except KeyError as error:
        raise WeightsError(f"{path}: not a complete CLIP, tensor {error} is missing") from error
    except (IndexError, ValueError, TypeError, ZeroDivisionError) as error:
        raise WeightsError(f"{path}: not a CLIP, a tensor has the wrong shape ({error})") from error
    try:
        require_match(state, expected_shapes(config), config.name)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    return next((record for record in PRETRAINED.values() if record.config == config), None)
