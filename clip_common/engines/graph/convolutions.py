"""Convolutions that do their BatchNorm's work too."""

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
    """[N, C, H, W] to [N, C', H', W'].

    Args:
        conv, norm: the names of its tensors, and of its BatchNorm's.
        padding: zeros above, left, below, right.
        groups: of channels that do not see each other; as many as there are in a depthwise convolution.
        epsilon: the BatchNorm's.
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
    """Weight and bias of both together; computed in float64."""
    gain, bias, mean, variance = (
        graph.weight(f"{norm}.{part}").astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / np.sqrt(variance + epsilon)
    weight = graph.weight(f"{conv}.weight") * scale.reshape(-1, 1, 1, 1)
    return weight.astype(np.float32), (bias - mean * scale).astype(np.float32)
