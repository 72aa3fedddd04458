"""A weights file: where it is, what is in it in OpenAI's names, and how ours are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ..errors import WeightsError
from .layouts import State, to_openai
from .readers import read_state


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that is there, and the hash by which what is computed from it is known."""

    path: Path
    sha256: str


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


def write_safetensors(state: State, path: Path, record: Mapping[str, Any]) -> None:
    """Write tensors, each in its type, with a record of what they are; same input, same bytes.

    The record is one entry of the file's metadata: the library writes several in random order.
    """
    tensors = {name: np.asarray(value, order="C") for name, value in state.items()}
    save_file(tensors, path, {"record": json.dumps(record, sort_keys=True)})
