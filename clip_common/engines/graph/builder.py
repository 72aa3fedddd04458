"""An ONNX graph, written node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper

from ...weights.mapped import release

_OPSET, _IR_VERSION = 17, 8
_LARGE = 1 << 10  # bytes from which a tensor goes to the file beside the graph
_ALIGNMENT = 64  # bytes; both runtimes map that file and read tensors where they are

Tensor = str
"""A tensor of the graph, by its name."""

Operand = Tensor | np.ndarray | float
"""A tensor of the graph, or a constant: an array of its type, or a number, float32."""


class Graph:
    """A graph that is written to `path`, and its large weights beside it, to `<path>.data`.

    Weights go to their file as they come, so that of a model only the tensor at hand is in memory.

    Args:
        path: the file of the graph.
        state: the weights, by OpenAI's names.

    Attributes:
        outputs: what it gives besides its answer, as ONNX declares it.
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
        """What the graph is given; a size that is a name is known only then."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        self._inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def weight(self, name: str) -> np.ndarray:
        """A tensor of the weights, float32, as an array to change; the file's pages of it are given back."""
        stored = self._state[name]
        value = np.array(stored, np.float32)
        release(stored)
        return value

    def constant(self, value: np.ndarray | float) -> Tensor:
        """A tensor of the graph that never changes."""
        array = np.ascontiguousarray(value, np.float32 if isinstance(value, float) else None)
        array = array.reshape(np.shape(value))  # numpy makes a vector of a number
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
        """The output of an operator of ONNX."""
        return self.ops(kind, 1, *operands, **attributes)[0]

    def ops(self, kind: str, outputs: int, *operands: Operand, **attributes: Any) -> list[Tensor]:
        """The outputs of an operator of ONNX that has several."""
        inputs = [operand if isinstance(operand, str) else self.constant(operand) for operand in operands]
        names = [f"{kind}_{len(self._nodes)}_{place}" for place in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names

    def save(self, output: Tensor, width: int) -> Path:
        """Write the graph, of which `output` [N, width] is the answer, the first output."""
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
