"""Writes an ONNX graph node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper

from ...weights.mapped import release

_OPSET, _IR_VERSION = 17, 8
_LARGE = 1 << 10  # bytes; tensors of this size or more go to the data file
_ALIGNMENT = 64  # bytes; both runtimes memory-map the data file and do not copy tensors

Tensor = str
"""The name of a tensor in the graph."""

Operand = Tensor | np.ndarray | float
"""A tensor of the graph, or a constant: an array (its type is kept) or a number (float32)."""


class Graph:
    """A graph that is written to `path`, with its large tensors in `<path>.data`.

    Each large tensor is written at once, so that only one is in memory at a time.

    Args:
        path: the file of the graph.
        state: the weights, by OpenAI's names.

    Attributes:
        outputs: additional outputs of the graph, as ONNX declarations.
    """

    def __init__(self, path: Path, state: Mapping[str, np.ndarray]) -> None:
        self._path, self._state = path, state
        self._nodes: list[Any] = []
        self._inputs: list[Any] = []
        self._constants: list[TensorProto] = []
        self.outputs: list[Any] = []
        self._data = path.with_name(f"{path.name}.data").open("wb")

    def __enter__(self) -> Graph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._data.close()

    def input(self, name: str, kind: type[np.generic], shape: Sequence[int | str]) -> Tensor:
        """Declare an input of the graph; a size given by a name is dynamic."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        self._inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def weight(self, name: str) -> np.ndarray:
        """A weight as a float32 array that may be modified; the file's memory pages are released."""
        stored = self._state[name]
        value = np.array(stored, np.float32)
        release(stored)
        return value

    def constant(self, value: np.ndarray | float) -> Tensor:
        """Add a constant tensor to the graph."""
        array = np.ascontiguousarray(value, np.float32 if isinstance(value, float) else None)
        array = array.reshape(np.shape(value))  # `ascontiguousarray` gives a number the shape [1]
        tensor = TensorProto(
            name=f"constant_{len(self._constants)}",
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            dims=array.shape,
        )
        if array.nbytes < _LARGE:
            tensor.raw_data = array.tobytes()
        else:
            self._write(array, tensor)
        self._constants.append(tensor)
        return tensor.name

    def _write(self, array: np.ndarray, tensor: TensorProto) -> None:
        self._data.write(bytes(-self._data.tell() % _ALIGNMENT))
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": Path(self._data.name).name, "offset": self._data.tell(), "length": array.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self._data.write(array.data)

    def op(self, kind: str, *operands: Operand, **attributes: Any) -> Tensor:
        """Add an ONNX operator and return its only output."""
        return self.ops(kind, 1, *operands, **attributes)[0]

    def ops(self, kind: str, outputs: int, *operands: Operand, **attributes: Any) -> list[Tensor]:
        """Add an ONNX operator and return its outputs."""
        inputs = [operand if isinstance(operand, str) else self.constant(operand) for operand in operands]
        names = [f"{kind}_{len(self._nodes)}_{place}" for place in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names

    def save(self, output: Tensor, width: int) -> Path:
        """Write the graph and return its path. `output` [N, width] becomes the first output, "features"."""
        answer = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", width])
        self._nodes.append(helper.make_node("Identity", [output], ["features"]))
        graph = helper.make_graph(
            self._nodes, self._path.stem, self._inputs, [answer, *self.outputs], self._constants
        )
        model: ModelProto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
        )
        self._data.close()
        self._path.write_bytes(model.SerializeToString())
        checker.check_model(str(self._path))
        return self._path
