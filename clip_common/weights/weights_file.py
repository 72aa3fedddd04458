"""A weights file: where it is, what is in it in OpenAI's names, and how ours are written."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import PRETRAINED, Pretrained
from ..errors import WeightsError
from ..system.cache import digest_of, sha256_of
from .mapped import release
from .readers import SAFETENSORS_TYPES, read_state
from .schema import expected_shapes, require_match
from .tensor_names import State, to_openai


@dataclass(frozen=True)
class WeightsFile:
    """A weights file on disk.

    Attributes:
        path: the file.
        sha256: hash of its content.
        record: the module's record, with the activation and preprocessing that these weights require.
    """

    path: Path
    sha256: str
    record: Pretrained

    @property
    def identity(self) -> str:
        """Identifies the model, as a key for whatever is computed with it.

        It is the hash of the file, combined with the activation and preprocessing if they differ from those
        of the module: the same bytes with another activation are another model.
        """
        own = self.record
        usual = PRETRAINED.get(own.name, own)
        if own.config.activation == usual.config.activation and own.preprocessing == usual.preprocessing:
            return self.sha256
        return digest_of(json.dumps([self.sha256, own.config.activation, asdict(own.preprocessing)]))

    def require_unchanged(self) -> None:
        """Check, after reading the file, that its content still has the recorded hash.

        Raises:
            WeightsError: the file was replaced in the meantime.
        """
        if sha256_of(self.path) != self.sha256:
            raise WeightsError(f"{self.path} was replaced while it was in use: start again")


def read_openai(path: Path) -> State:
    """Read the tensors of a file, in OpenAI's names and orientation, with their original types.

    Raises:
        WeightsError: the file cannot be read, or its layout is unknown.
    """
    try:
        return to_openai(read_state(path))
    except WeightsError as error:
        message = str(error)
        raise WeightsError(message if str(path) in message else f"{path}: {message}") from error


def read_whole(weights: WeightsFile) -> State:
    """As `read_openai`, and check that the tensors are complete and fit the config.

    Raises:
        WeightsError: the file cannot be read, or tensors do not fit; the message names them.
    """
    state, config = read_openai(weights.path), weights.record.config
    try:
        require_match(state, expected_shapes(config), config.name)
    except WeightsError as error:
        raise WeightsError(f"{weights.path}: {error}") from error
    for value in state.values():
        release(value)  # the check has read them all
    return state


def write_safetensors(state: State, path: Path, record: Mapping[str, Any]) -> None:
    """Write tensors with their types, and a record as metadata. The output is deterministic.

    The bytes are the same as from the safetensors library, which is not used because it copies all tensors
    first, and leaves a temporary file behind if the process is killed. The record is a single metadata entry,
    because the library writes several in random order.
    """
    order = list(SAFETENSORS_TYPES)

    def place(name: str) -> tuple[int, str]:
        return -order.index(state[name].dtype.str), name

    header: dict[str, Any] = {"__metadata__": {"record": json.dumps(record, sort_keys=True)}}
    end = 0
    for name in sorted(state, key=place):
        value = np.asarray(state[name])
        start, end = end, end + value.nbytes
        header[name] = {
            "dtype": SAFETENSORS_TYPES[value.dtype.str],
            "shape": list(value.shape),
            "data_offsets": [start, end],
        }
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for name in sorted(state, key=place):
            file.write(np.asarray(state[name], order="C").data)
