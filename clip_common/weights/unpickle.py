"""Reads pickles of torch and Paddle as data: nothing that a pickle names is ever imported or called.

A pickle is a program. This reader runs only the opcodes that the two frameworks write. Each name on an
exact list is replaced by a harmless stand-in; any other name, opcode or callable is an error. It builds on
Python's pure-Python unpickler, because the C one allocates memory by indices read from the file.
"""

from __future__ import annotations

import io
import mmap
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ..errors import WeightsError

Readable = io.BytesIO | mmap.mmap
StorageReader = Callable[[str, np.dtype, int], np.ndarray]

# Storage classes of torch -> numpy types. numpy has no bfloat16: this type holds its bits.
BFLOAT16 = np.dtype([("bfloat16", "<u2")])
_TORCH_STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "DoubleStorage": np.dtype("<f8"),
    "BFloat16Storage": BFLOAT16,
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_NUMPY_TYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "b1"}
_MAX_DIMS = 8


class Record:
    """Stands in for an object of a TorchScript class: the class name and the object's attributes."""

    def __init__(self, qualname: str) -> None:
        self.qualname = qualname
        self.state: dict[str, Any] = {}

    def set_state(self, state: Any) -> None:
        """Keep the attributes of the pickled object."""
        if not isinstance(state, dict):
            raise WeightsError(f"the state of {self.qualname} in this pickle is not a dictionary")
        self.state = state


class _Mapping(dict):
    """Stands in for OrderedDict. Its attribute `_metadata`, added by torch, is dropped."""

    def __init__(self) -> None:
        super().__init__()  # always empty at first: `load_items` fills it and checks the keys

    def set_state(self, state: Any) -> None:
        """Drop the attributes."""


class _DType:
    """Stands in for numpy.dtype: a type name, checked when the array is created."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = str(name) if isinstance(name, str) else "?"
        self.big_endian = False

    def set_state(self, state: Any) -> None:
        """Keep the byte order; the rest of numpy's state does not matter for plain numbers."""
        self.big_endian = isinstance(state, tuple) and len(state) > 1 and state[1] == ">"


class _Array:
    """Stands in for numpy.ndarray: shape, type and bytes, checked against each other."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        """Create the array from (version, shape, dtype, is_fortran, bytes)."""
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _DType) or dtype.name not in _NUMPY_TYPES or dtype.big_endian:
            raise WeightsError("an array in this pickle is not of a plain little-endian number type")
        count = _count(shape)
        kind = np.dtype(dtype.name)
        if not isinstance(data, bytes) or len(data) != count * kind.itemsize:
            raise WeightsError("an array in this pickle does not have the bytes of its shape: truncated?")
        self.value = np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


def _count(shape: Any) -> int:
    """The number of elements of a shape read from a file, after checking the shape."""
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMS:
        raise WeightsError("a tensor in this file has no sensible shape")
    count = 1
    for side in shape:
        if type(side) is not int or side < 0:
            raise WeightsError("a tensor in this file has no sensible shape")
        count *= side
    return count


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """A view of a storage, like `torch._utils._rebuild_tensor_v2`; it must lie within the storage."""
    count = _count(size)
    _count(stride)
    if not isinstance(storage, np.ndarray) or type(offset) is not int or len(size) != len(stride):
        raise WeightsError("a tensor in this file does not fit its storage")
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if offset < 0 or (count and last >= storage.size):
        raise WeightsError("a tensor in this file reaches beyond its storage: truncated?")
    if count == 0:
        return np.empty(size, storage.dtype)
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


def _first(value: Any, *_: Any) -> Any:
    return value


def _new_array(*_: Any) -> _Array:
    return _Array()


def _nothing(*_: Any) -> None:
    """Drop a numpy scalar, such as a run's best accuracy: weights are never stored as one."""


_CALLABLES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Mapping,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    ("torch.jit._pickle", "build_intlist"): _first,
    ("torch.jit._pickle", "build_tensorlist"): _first,
    ("numpy", "ndarray"): "numpy.ndarray",  # only used as an argument, never called
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy.core.multiarray", "scalar"): _nothing,
    ("numpy._core.multiarray", "scalar"): _nothing,
    **{("torch", name): dtype for name, dtype in _TORCH_STORAGES.items()},
}
_OPCODES = [
    getattr(pickle, name)[0]
    for name in (
        "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT "
        "BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
        "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS "
        "BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID"
    ).split()
]


class _Unpickler(pickle._Unpickler):
    """Python's unpickler with only the opcodes above, and stand-ins for what it would import."""

    stack: list[Any]  # of the base class, but missing from its type stubs
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: Readable, storages: StorageReader | None) -> None:
        super().__init__(file)
        self._storages = storages
        self._bytes_left = len(file) if isinstance(file, mmap.mmap) else file.getbuffer().nbytes

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return lambda *_: Record(f"{module}.{name}")
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        try:
            return _CALLABLES[module, name]
        except KeyError:
            raise WeightsError(
                f"this pickle names {module}.{name}, which no weights file needs: it was not loaded. "
                "Save the tensors alone, with torch.save(model.state_dict(), ...)"
            ) from None

    def _encode(self, text: Any, encoding: Any) -> bytes:
        """`codecs.encode`: protocol 2 stores bytes as text to encode. All of it must fit into the file."""
        if not isinstance(text, str) or encoding != "latin1" or len(text) > self._bytes_left:
            raise WeightsError("this pickle holds bytes in an unexpected form")
        self._bytes_left -= len(text)
        return text.encode("latin1")

    def persistent_load(self, pid: Any) -> np.ndarray:
        if self._storages is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise WeightsError("this pickle refers to a storage in an unexpected form")
        _, dtype, key, _device, count = pid[:5]  # the device does not change the numbers
        if not isinstance(dtype, np.dtype) or not isinstance(key, str) or type(count) is not int or count < 0:
            raise WeightsError("this pickle refers to a storage in an unexpected form")
        return self._storages(key, dtype, count)

    def load_new(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.stack[-1](*args)

    def load_state(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (Record, _Mapping, _DType, _Array)):
            raise WeightsError("this pickle sets the state of something that has none: it was not loaded")
        self.stack[-1].set_state(state)

    def load_items(self) -> None:
        # `_set` allows only str and int keys: hashing a nested tuple could take forever.
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def load_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(key, value)

    def _set(self, key: Any, value: Any) -> None:
        if not isinstance(key, (str, int)) or not isinstance(self.stack[-1], dict):
            raise WeightsError("this pickle fills something other than a dictionary by name")
        # An optimizer's state has integer keys. They are stored as text, because integers could be chosen
        # to collide in the hash table, which takes quadratic time.
        self.stack[-1][str(key)] = value

    dispatch: ClassVar[dict[int, Callable]] = {
        **{code: pickle._Unpickler.dispatch[code] for code in _OPCODES},
        pickle.NEWOBJ[0]: load_new,
        pickle.REDUCE[0]: load_new,
        pickle.BUILD[0]: load_state,
        pickle.SETITEM[0]: load_item,
        pickle.SETITEMS[0]: load_items,
    }


def load_bytes(data: bytes, storages: StorageReader | None = None) -> Any:
    """`load` for a pickle in memory."""
    return load(io.BytesIO(data), storages)


def load(file: Readable, storages: StorageReader | None = None) -> Any:
    """Read one pickle. Tensors become numpy arrays, TorchScript objects become `Record`.

    Args:
        file: positioned at the start of the pickle. Its `read` must not allocate more than the file holds;
            `BytesIO` and `mmap` satisfy this.
        storages: returns the elements of a torch storage, given its key, type and count.

    Raises:
        WeightsError: the pickle is damaged, or needs a name or opcode that is not allowed.
    """
    try:
        value = _Unpickler(file, storages).load()
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle can fail anywhere in the unpickler
        raise WeightsError(f"this pickle is damaged ({type(error).__name__})") from error
    return unwrap(value)


def unwrap(value: Any) -> Any:
    """Replace array stand-ins by arrays, at the top and one level below, where state dicts have them."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: item.value if isinstance(item, _Array) else item for key, item in value.items()}
    return value


def holds_arrays(value: Any) -> bool:
    """Whether this is a dictionary that contains an array or the stand-in of an array."""
    return isinstance(value, dict) and any(isinstance(item, (np.ndarray, _Array)) for item in value.values())
