"""Writes torch's files opcode by opcode, without torch."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np

_KINDS = {"<f4": "FloatStorage", "<f2": "HalfStorage"}
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19." + b"\x80\x02M\xe9\x03." + b"\x80\x02}."


def raw(*parts: bytes) -> bytes:
    """A pickle of protocol 2."""
    return b"\x80\x02" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def tensor(
    kind: str, count: int, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, key: str = "0"
) -> bytes:
    """The opcodes of a tensor with its own storage, as torch writes them."""
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    storage += b"J" + struct.pack("<i", count) + b"tQ"
    built = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + numbers(offset)[1:-1]
        + numbers(*shape)
        + numbers(*stride)
    )
    return built + b"\x89}tR"


def archive(members: dict[str, bytes], packed: bool = False) -> bytes:
    """A zip file like torch's."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as target:
        for name, content in members.items():
            target.writestr(f"archive/{name}", content)
    return stream.getvalue()


def _pickled(state: dict[str, np.ndarray]) -> bytes:
    parts = []
    for key, (name, value) in enumerate(state.items()):
        stride = tuple(step // value.itemsize for step in value.strides)
        parts += [
            text(name),
            tensor(_KINDS[value.dtype.str], value.size, value.shape, stride, key=str(key)),
            b"s",
        ]
    return raw(b"}", *parts)


def _storage(value: np.ndarray) -> bytes:
    return value.ravel("K").tobytes()  # in memory order


def in_zip(state: dict[str, np.ndarray]) -> bytes:
    """A state dict as torch.save writes it, each tensor with its own storage."""
    storages = {f"data/{key}": _storage(value) for key, value in enumerate(state.values())}
    return archive({"data.pkl": _pickled(state), **storages})


def in_stream(state: dict[str, np.ndarray]) -> bytes:
    """A state dict as torch.save wrote it before version 1.6."""
    keys = pickle.dumps([str(key) for key in range(len(state))], 2)
    storages = [struct.pack("<q", value.size) + _storage(value) for value in state.values()]
    return b"".join([_LEGACY, _pickled(state), keys, *storages])
