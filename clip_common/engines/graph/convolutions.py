"""Convolutions with their BatchNorm folded in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .builder import Graph, Tensor


def convolution(
    graph: Graph,
    x: Tensor,
    conv: str,
    norm: str,
    stride: int = 1,
    padding: Sequence[int] = (0, 0, 0, 0),
    groups: int = 1,
    epsilon: float = 1e-5,
) -> Tensor:
    """A convolution followed by BatchNorm: [N, C, H, W] to [N, C', H', W'].

    Args:
        conv, norm: names of the convolution and of its BatchNorm in the weights.
        padding: zeros above, left, below, right.
        groups: number of channel groups; C for a depthwise convolution.
        epsilon: epsilon of the BatchNorm.
    """
    weight, bias = _folded(graph, conv, norm, epsilon)
    return graph.op(
        "Conv",
        x,
        weight,
        bias,
        kernel_shape=weight.shape[2:],
        strides=[stride, stride],
        pads=list(padding),
        group=groups,
    )


def _folded(graph: Graph, conv: str, norm: str, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """The weight and bias of the convolution with BatchNorm folded in, computed in float64."""
    gain, bias, mean, variance = (
        graph.weight(f"{norm}.{part}").astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / np.sqrt(variance + epsilon)
    weight = graph.weight(f"{conv}.weight") * scale.reshape(-1, 1, 1, 1)
    return weight.astype(np.float32), (bias - mean * scale).astype(np.float32)
