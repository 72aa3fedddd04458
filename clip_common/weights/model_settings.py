"""The settings that a weights file requires: the activation, and the preprocessing of images.

Weights load with either activation, but give wrong results with the wrong one. So the settings are determined
for every file: published files are known by their hash; files written by this project record them; else they
are read from `open_clip_config.json` or `config.json` beside the file; else a warning says what is assumed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..config import Activation, Preprocessing, Pretrained
from ..errors import WeightsError
from ..system.log import logger
from ..system.reading import read_whole

_MOST_JSON = 16 << 20  # bytes of a configuration
_ACTIVATIONS: dict[str, Activation] = {"quick_gelu": "quick_gelu", "gelu": "gelu"}


def settle(record: Pretrained, path: Path, sha256: str) -> Pretrained:
    """A module's record with the settings of a weights file, see `known_settings`; warns if unknown."""
    known = known_settings(record, path, sha256)
    if known is None:
        logger.warning(
            "%s: nothing says how these weights were trained; %s is assumed, as for %s's own weights. If "
            "that is wrong, put their config.json or open_clip_config.json next to the file",
            path,
            record.config.activation,
            record.name,
        )
    return known or record


def known_settings(record: Pretrained, path: Path, sha256: str) -> Pretrained | None:
    """A module's record with the activation and preprocessing of a weights file; None if they are unknown.

    Raises:
        WeightsError: invalid settings; the message names the file that contains them.
    """
    noted = read_note(path)
    for source in record.published:
        if source.sha256 and source.sha256 in (sha256, noted.get("source_sha256")):
            return record.with_weights(source)
    if "activation" in noted:
        activation = _activation(noted["activation"], path)
        return record.with_settings(activation, _preprocessing_noted(noted, record, path))
    if noted.get("module") == record.name:  # written before there was another activation
        return record
    for name, read in (("open_clip_config.json", _from_open_clip), ("config.json", _from_config)):
        beside = path.with_name(name)
        if beside.is_file() and (found := read(record, beside, _read_json(beside))):
            return found
    return None


def note_of(record: Pretrained) -> dict[str, str]:
    """The settings to record in a weights file, read again by `known_settings`."""
    return {
        "activation": record.config.activation,
        "preprocessing": json.dumps(asdict(record.preprocessing)),
    }


def read_note(path: Path) -> dict[str, Any]:
    """The record in a safetensors file written by this project; empty for any other file."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="np") as file:
            note = json.loads((file.metadata() or {}).get("record", "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError):
        return {}  # the reader of weights says what is wrong with it
    return note if isinstance(note, dict) else {}


def _preprocessing_noted(note: dict[str, Any], record: Pretrained, path: Path) -> Preprocessing:
    try:
        values = json.loads(note["preprocessing"]) if "preprocessing" in note else {}
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return replace(record.preprocessing, **values)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: the preprocessing in its record cannot be used ({error})") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_whole(path, _MOST_JSON).decode())
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path}, beside the weights, cannot be read: {reason}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}, beside the weights, is not a configuration")
    return content


def _from_open_clip(record: Pretrained, path: Path, content: dict[str, Any]) -> Pretrained:
    """open_clip's `{"model_cfg": ..., "preprocess_cfg": ...}`, or a model configuration alone."""
    model = _part(content, "model_cfg", path) if "model_cfg" in content else content
    activation: Activation = "quick_gelu" if model.get("quick_gelu", False) else "gelu"
    settings = _part(content, "preprocess_cfg", path)
    mode = settings.get("resize_mode")
    if mode not in (None, "shortest", "squash") or settings.get("interpolation", "bicubic") != "bicubic":
        raise WeightsError(f"{path}: its preprocess_cfg asks for a resizing that is not supported")
    preprocessing = record.preprocessing
    if mode:
        preprocessing = replace(preprocessing, resize="squash" if mode == "squash" else "crop")
    preprocessing = _with_statistics(preprocessing, settings.get("mean"), settings.get("std"), path)
    return record.with_settings(activation, preprocessing)


def _from_config(record: Pretrained, path: Path, content: dict[str, Any]) -> Pretrained | None:
    """Hugging Face's `config.json` of a CLIP, with `preprocessor_config.json` beside it; or open_clip's."""
    if "model_cfg" in content or "vision_cfg" in content or "quick_gelu" in content:
        return _from_open_clip(record, path, content)
    if "vision_config" not in content and "text_config" not in content:
        return None  # of something else
    vision, text = _part(content, "vision_config", path), _part(content, "text_config", path)
    # transformers leaves out of the file what is the default of its class.
    named = {vision.get("hidden_act", "quick_gelu")}
    if record.config.text.tokenizer == "byte_pair":  # a BERT has its own, whatever the image tower's
        named.add(text.get("hidden_act", "quick_gelu"))
    if len(named) > 1:
        raise WeightsError(f"{path}: the towers have different activations, {' and '.join(map(str, named))}")
    activation = _activation(named.pop(), path)
    statistics: dict[str, Any] = {}
    if (beside := path.with_name("preprocessor_config.json")).is_file():
        statistics = _read_json(beside)
    mean, std = statistics.get("image_mean"), statistics.get("image_std")
    return record.with_settings(activation, _with_statistics(record.preprocessing, mean, std, beside))


def _part(content: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    part = content.get(name) or {}
    if not isinstance(part, dict):
        raise WeightsError(f"{path}: {name} is not a table of settings")
    return part


def _activation(name: object, path: Path) -> Activation:
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise WeightsError(f"{path}: activation {name!r} is not supported, only {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _with_statistics(settings: Preprocessing, mean: object, std: object, path: Path) -> Preprocessing:
    """Preprocessing with a mean and deviation that a configuration names, if it names them."""
    if mean is not None:
        settings = replace(settings, mean=_three_numbers("mean", mean, path))
    if std is not None:
        settings = replace(settings, std=_three_numbers("std", std, path))
    return settings


def _three_numbers(name: str, values: object, path: Path) -> tuple[float, float, float]:
    numbers = values if isinstance(values, (list, tuple)) else []
    if len(numbers) != 3 or not all(isinstance(value, (int, float)) for value in numbers):
        raise WeightsError(f"{path}: its {name} is {values!r}, expected three numbers")
    one, two, three = map(float, numbers)
    return one, two, three
