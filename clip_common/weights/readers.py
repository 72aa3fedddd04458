"""Reads weights files of every supported format into a state dict of numpy arrays; no code in them is run.

The format is detected from the content, not from the extension: OpenAI's TorchScript archives, torch state
dicts (zip, and the older stream of pickles), Paddle's pickled state dicts, safetensors. Large tensors are
views of the memory-mapped file where the format allows it.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import WeightsError
from ..system.reading import require_regular
from . import unpickle
from .mapped import release
from .tensor_names import State

_LEGACY_TORCH_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # LONG1, and torch's magic number
_ZIP_MAGIC = b"PK\x03\x04"
_MAX_SMALL_BYTES = 64 << 20  # limit for an archive's pickle and source files; OpenAI's are under 1 MB
# The types of safetensors. Its library writes tensors in the reverse of this order.
SAFETENSORS_TYPES = {
    "|b1": "BOOL", "|u1": "U8", "|i1": "I8", "<i2": "I16", "<u2": "U16", "<f2": "F16", "<i4": "I32",
    "<u4": "U32", "<f4": "F32", "<f8": "F64", "<i8": "I64", "<u8": "U64",
}  # fmt: skip
_SAFETENSORS: dict[str, np.dtype | str] = {
    "BF16": unpickle.BFLOAT16,
    **{name: dtype for dtype, name in SAFETENSORS_TYPES.items()},
}
_MAX_NAME = 1000  # characters of a tensor's name
# Keys under which training scripts save the model's tensors, next to the optimizer's state and the epoch.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
_ONE_ALONE = "save the model's tensors alone, with torch.save(model.state_dict(), ...)"
_SUPPORTED = "a TorchScript or torch state dict (.pt, .pth), .pdparams, or .safetensors"


def read_state(path: Path) -> State:
    """Read the tensors of a weights file by name, in the file's own layout.

    Types stay as in the file, but bfloat16 becomes float32.

    Raises:
        WeightsError: the file does not exist, has an unsupported format, or is damaged; the message
            names the file.
    """
    try:
        require_regular(path)
        with path.open("rb") as file:
            head = file.read(16)
            if not head:
                raise WeightsError("the file is empty")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _widened(_reader_of(head)(path, mapped), len(mapped))
    except OSError as error:
        raise WeightsError(f"cannot read weights {path}: {error.strerror or error}") from error
    except (WeightsError, SafetensorError) as error:
        raise WeightsError(f"cannot read weights {path}: {error}") from error
    except Exception as error:  # a damaged file can fail anywhere in the readers
        raise WeightsError(
            f"cannot read weights {path}: damaged ({type(error).__name__}: {error})"
        ) from error


def _widened(state: State, file_size: int) -> State:
    """Convert bfloat16 tensors to float32.

    The total size is checked first: overlapping views could turn a file of a few bytes into gigabytes.
    """
    if sum(value.nbytes for value in state.values()) > 2 * file_size:
        raise WeightsError("its tensors are larger than the file")
    for name, value in state.items():
        if value.dtype == unpickle.BFLOAT16:
            bits = value["bfloat16"].astype("<u4")
            bits <<= np.uint32(16)  # with a Python int, NumPy 1 would turn a 0-D array into int64
            state[name] = bits.view("<f4")
            release(value)
    return state


def _reader_of(head: bytes) -> Any:
    if head.startswith(_ZIP_MAGIC):
        return _read_torch_zip
    if head[8:9] == b"{":
        return _read_safetensors
    if head[2:14] == _LEGACY_TORCH_MAGIC:
        return _read_torch_legacy
    if head[0] == 0x80:
        return _read_paddle
    raise WeightsError(f"unknown format: expected {_SUPPORTED}")


# --- safetensors -------------------------------------------------------------------------------------


def _read_safetensors(path: Path, mapped: mmap.mmap) -> State:
    """Return views of the mapped file; the safetensors library would copy it."""
    with safe_open(path, framework="np"):  # checks the header against the file
        pass
    (length,) = struct.unpack("<Q", mapped[:8])
    header = json.loads(mapped[8 : 8 + length])
    header.pop("__metadata__", None)
    state = {}
    for name, entry in sorted(header.items()):
        if entry["dtype"] not in _SAFETENSORS:
            raise WeightsError(f"tensor {name} is of the type {entry['dtype']}, which is not supported")
        dtype = np.dtype(_SAFETENSORS[entry["dtype"]])
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        values = np.frombuffer(memoryview(mapped)[start:stop], dtype)
        state[name] = values.reshape(entry["shape"])
    return state


# --- torch -------------------------------------------------------------------------------------------


class _TorchArchive:
    """The zip file that torch writes: one folder with `data.pkl` and an uncompressed file per storage."""

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self.mapped = mapped
        self.allowance = _MAX_SMALL_BYTES
        self.zip = zipfile.ZipFile(path)
        pickles = [
            name for name in self.zip.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(pickles) != 1:
            raise WeightsError(f"a zip file, but not one that torch wrote: expected {_SUPPORTED}")
        self.folder = pickles[0].split("/")[0]

    def read(self, name: str) -> bytes:
        """Read a small member. The total size of all members read is limited, against zip bombs."""
        with self.zip.open(f"{self.folder}/{name}") as member:
            content = member.read(self.allowance + 1)
        self.allowance -= len(content)
        if self.allowance < 0:
            raise WeightsError(f"{name} in the archive is too large: not a file that torch wrote")
        return content

    def view(self, name: str) -> memoryview:
        """The bytes of an uncompressed member in the mapped file, not copied."""
        try:
            info = self.zip.getinfo(f"{self.folder}/{name}")
        except KeyError:
            raise WeightsError(f"the archive lacks {name}: truncated?") from None
        if info.compress_type != zipfile.ZIP_STORED:
            raise WeightsError(f"{name} in the archive is compressed: not a file that torch wrote")
        header = self.mapped[info.header_offset : info.header_offset + 30]
        if len(header) < 30:
            raise WeightsError(f"{name} in the archive is truncated")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = info.header_offset + 30 + name_length + extra_length
        content = memoryview(self.mapped)[start : start + info.file_size]
        if len(content) < info.file_size:
            raise WeightsError(f"{name} in the archive is truncated")
        return content

    def storage(self, key: str, dtype: np.dtype, count: int) -> np.ndarray:
        content = self.view(f"data/{key}")
        if len(content) < count * dtype.itemsize:
            raise WeightsError(f"storage {key} in the archive is shorter than its tensors: truncated?")
        return np.frombuffer(content, dtype, count)


def _read_torch_zip(path: Path, mapped: mmap.mmap) -> State:
    archive = _TorchArchive(path, mapped)
    if f"{archive.folder}/byteorder" in archive.zip.NameToInfo and archive.read("byteorder") != b"little":
        raise WeightsError("the tensors are big-endian, which is not supported")
    root = unpickle.load_bytes(archive.read("data.pkl"), archive.storage)
    if isinstance(root, unpickle.Record):
        return _torchscript_state(root, _registered_names(archive))
    return _checked_state(root)


def _registered_names(archive: _TorchArchive) -> dict[str, set[str]]:
    """The names of parameters and buffers of each TorchScript class, as declared in the archive's code.

    Other tensors of a module, such as an attention mask, are attributes: torch's `state_dict()` leaves them
    out, and so do we. The code is only searched for declarations, never run.
    """
    registered = {}
    prefix = f"{archive.folder}/code/"
    for member in archive.zip.namelist():
        if not (member.startswith(prefix) and member.endswith(".py")):
            continue
        module = member[len(prefix) : -len(".py")].replace("/", ".")
        text = archive.read(member[len(archive.folder) + 1 :]).decode("utf-8", "replace")
        for name, body in re.findall(r"^class (\w+)\(Module\):\n((?:[ \t].*\n|\n)*)", text, re.MULTILINE):
            lists = re.findall(r"^[ \t]+__(?:parameters|buffers)__ = \[(.*?)\]", body, re.MULTILINE)
            registered[f"{module}.{name}"] = {item for one in lists for item in re.findall(r'"([^"]+)"', one)}
    return registered


def _torchscript_state(root: unpickle.Record, registered: dict[str, set[str]]) -> State:
    """Collect the state dict of a TorchScript module by walking its tree of records."""
    state: State = {}
    pending = [("", root)]
    seen = set()
    while pending:
        prefix, module = pending.pop()
        if id(module) in seen or len(prefix) > _MAX_NAME:
            raise WeightsError("the archive's tree of modules is not one that torch wrote")
        seen.add(id(module))
        names = registered.get(module.qualname, set())
        for name, value in module.state.items():
            if isinstance(value, unpickle.Record):
                pending.append((f"{prefix}{name}.", value))
            elif isinstance(value, np.ndarray) and name in names:
                state[prefix + name] = value
    return state


def _read_torch_legacy(_path: Path, mapped: mmap.mmap) -> State:
    """Read a file of torch before 1.6: magic number, protocol, system, object, storage keys, storages."""
    for _ in range(3):
        unpickle.load(mapped)
    start = mapped.tell()
    sizes: dict[str, tuple[np.dtype, int]] = {}

    def note_size(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        if count * dtype.itemsize > len(mapped):
            raise WeightsError(f"storage {key} is larger than the file: truncated?")
        sizes[key] = (dtype, count)
        return np.zeros(count, dtype)

    # The object comes before its storages: read it once for their sizes, and again to fill it.
    unpickle.load(mapped, note_size)
    keys = unpickle.load(mapped)
    texts = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not texts or set(keys) != set(sizes):
        raise WeightsError("the storages of this file do not match its tensors")
    storages = {}
    offset = mapped.tell()
    for key in keys:
        dtype, count = sizes[key]
        offset += 8  # the element count, repeated
        storages[key] = np.frombuffer(mapped, dtype, count, offset) if count else np.empty(0, dtype)
        offset += count * dtype.itemsize
    mapped.seek(start)
    return _checked_state(unpickle.load(mapped, lambda key, _dtype, _count: storages[key]))


# --- Paddle ------------------------------------------------------------------------------------------


def _read_paddle(_path: Path, mapped: mmap.mmap) -> State:
    checked = _checked_state(unpickle.load(mapped))
    # Paddle writes bfloat16 as uint16, a type that no tensor of a model has otherwise.
    return {n: v.view(unpickle.BFLOAT16) if v.dtype == np.uint16 else v for n, v in checked.items()}


def _checked_state(content: Any) -> State:
    """The state dict in a file's content: the content itself, or one entry of a training checkpoint."""
    if not isinstance(content, dict) or not content:
        raise WeightsError("the file holds no state dict, a mapping of names to tensors")
    wrappers = [name for name in _WRAPPERS if unpickle.holds_arrays(content.get(name))]
    if len(wrappers) > 1:
        raise WeightsError(f"the file holds several state dicts, {', '.join(wrappers)}: {_ONE_ALONE}")
    state = unpickle.unwrap(content[wrappers[0]]) if wrappers else content
    state.pop("StructuredToParameterName@@", None)  # Paddle's table of parameter names
    strays = [name for name, value in state.items() if not isinstance(value, np.ndarray)]
    if strays:
        raise WeightsError(f"{strays[0]!r} in the file's state dict is not a tensor: {_ONE_ALONE}")
    return state
