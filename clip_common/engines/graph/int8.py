"""Graphs with int8 layers (static quantisation), and graphs that measure the ranges of their inputs.

In a layer, a convolution or a linear layer with weights, the weights are quantised to int8 with a scale per
output channel, and the input to uint8 with one scale that is fixed when the graph is written. So the features
of an image do not depend on its batch. Runtimes execute a multiplication between `DequantizeLinear` operators
in int8; everything between the layers stays float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper

from .builder import Graph, Operand, Tensor
from .layers import int64

_SMALLEST = 1e-5  # lower bound of divisors, for channels that are zero everywhere


class Range(NamedTuple):
    """Minimum and maximum of a layer's input: per channel for a linear layer [C], else overall [1]."""

    low: np.ndarray
    high: np.ndarray


def joined(ranges: Iterable[Sequence[Range]]) -> list[Range]:
    """The ranges of each layer over several batches."""
    return [
        Range(np.min([part.low for part in parts], axis=0), np.max([part.high for part in parts], axis=0))
        for parts in zip(*ranges, strict=True)
    ]


def _is_layer(kind: str, operands: Sequence[Operand]) -> bool:
    """Whether an operator has weights and is therefore quantised; attention's products are not."""
    dimensions = {"MatMul": 2, "Conv": 4}.get(kind)
    return dimensions is not None and isinstance(operands[1], np.ndarray) and operands[1].ndim == dimensions


class RangesGraph(Graph):
    """A graph with additional outputs: minimum and maximum of each layer's input, in order."""

    def ops(self, kind: str, outputs: int, *operands: Operand, **attributes: Any) -> list[Tensor]:
        """See `Graph.ops`; measures the input of a layer."""
        if _is_layer(kind, operands):
            channels = len(np.asarray(operands[1])) if kind == "MatMul" else 1
            flat = super().ops("Reshape", 1, operands[0], int64(-1, channels))[0]
            for reduction in ("ReduceMin", "ReduceMax"):
                (found,) = super().ops(reduction, 1, flat, axes=[0], keepdims=0)
                self.outputs.append(helper.make_tensor_value_info(found, TensorProto.FLOAT, [channels]))
        return super().ops(kind, outputs, *operands, **attributes)


class Int8Graph(Graph):
    """A graph with int8 layers.

    Args:
        ranges: input ranges of the layers, in the order in which they are written.
    """

    def __init__(self, path: Path, state: Mapping[str, np.ndarray], ranges: Sequence[Range]) -> None:
        super().__init__(path, state)
        self._ranges = iter(ranges)

    def ops(self, kind: str, outputs: int, *operands: Operand, **attributes: Any) -> list[Tensor]:
        """See `Graph.ops`; quantises the operands of a layer."""
        if not _is_layer(kind, operands):
            return super().ops(kind, outputs, *operands, **attributes)
        x, weight, *bias = operands
        assert isinstance(weight, np.ndarray)
        given = next(self._ranges)
        if kind == "MatMul":
            x, weight, given = self._smoothed(x, weight, given)
        rounded = self._rounded_weight(weight, axis=1 if kind == "MatMul" else 0)
        return super().ops(kind, outputs, self._rounded_input(x, given), rounded, *bias, **attributes)

    def _smoothed(self, x: Operand, weight: np.ndarray, given: Range) -> tuple[Tensor, np.ndarray, Range]:
        """Scale the channels of an input to similar ranges, and the weights inversely.

        This is SmoothQuant (arXiv 2211.10438) with alpha 0.5: without it, a few large channels would use most
        of the range of the common scale.
        """
        largest = np.maximum(np.abs(given.low), np.abs(given.high))
        by = np.sqrt(np.maximum(largest, _SMALLEST) / np.maximum(np.abs(weight).max(axis=1), _SMALLEST))
        by = by.astype(np.float32)
        return self.op("Mul", x, 1 / by), weight * by[:, None], Range(given.low / by, given.high / by)

    def _rounded_input(self, x: Operand, given: Range) -> Tensor:
        """Quantise to uint8 and back. The range is extended to include zero."""
        low, high = min(0.0, float(given.low.min())), max(0.0, float(given.high.max()))
        scale = (high - low) / 255 or 1.0
        zero = np.array(round(-low / scale), np.uint8)
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, scale, zero), scale, zero)

    def _rounded_weight(self, weight: np.ndarray, axis: int) -> Tensor:
        """Quantise weights to int8, -127 to 127, with a scale per output channel."""
        others = tuple(place for place in range(weight.ndim) if place != axis)
        scale = np.abs(weight).max(axis=others) / 127
        scale[scale == 0] = 1
        shape = [-1 if place == axis else 1 for place in range(weight.ndim)]
        rounded = np.round(weight / scale.reshape(shape)).astype(np.int8)
        zero = np.zeros(len(scale), np.int8)
        return self.op("DequantizeLinear", rounded, scale.astype(np.float32), zero, axis=axis)
