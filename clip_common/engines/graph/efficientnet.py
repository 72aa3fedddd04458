"""The graph of an EfficientNet-Lite image tower."""

from __future__ import annotations

from ...config import EfficientNetConfig, same_padding
from .builder import Graph, Tensor
from .convolutions import convolution
from .layers import linear, read_linear

_EPSILON = 1e-3  # of its BatchNorms


def efficientnet(graph: Graph, image: Tensor, config: EfficientNetConfig, size: int) -> Tensor:
    """Pixels [N, 3, size, size] to features [N, embed_dim]."""
    x = pooled(graph, image, config, size)
    projected = graph.op("MatMul", x, graph.weight("visual.head.projection"))
    hidden = graph.op("Relu", linear(graph, x, read_linear(graph, "visual.head.c_fc")))
    return graph.op("Add", projected, linear(graph, hidden, read_linear(graph, "visual.head.c_proj")))


def pooled(graph: Graph, image: Tensor, config: EfficientNetConfig, size: int) -> Tensor:
    """Pixels [N, 3, size, size] to the input of the head, [N, config.features]."""
    x = _activated(graph, image, "visual.conv_stem", "visual.bn_stem", 2, _pads(size, 3, 2))
    size, before, number = -(-size // 2), config.stem, 0
    for stage in config.stages:
        for place in range(stage.blocks):
            stride = stage.stride if place == 0 else 1
            name, inner = f"visual.blocks.{number}", before * stage.expansion
            y = x
            if stage.expansion > 1:
                y = _activated(graph, y, f"{name}.conv_expand", f"{name}.bn_expand")
            pads = _pads(size, stage.kernel, stride)
            y = _activated(graph, y, f"{name}.conv_depthwise", f"{name}.bn_depthwise", stride, pads, inner)
            y = convolution(graph, y, f"{name}.conv_project", f"{name}.bn_project", epsilon=_EPSILON)
            x = graph.op("Add", y, x) if stride == 1 and before == stage.channels else y
            size, before, number = -(-size // stride), stage.channels, number + 1
    x = _activated(graph, x, "visual.conv_head", "visual.bn_head")  # N features R/32 R/32
    return graph.op("ReduceMean", x, axes=[2, 3], keepdims=0)


def _activated(
    graph: Graph,
    x: Tensor,
    conv: str,
    norm: str,
    stride: int = 1,
    pads: tuple[int, ...] = (0, 0, 0, 0),
    groups: int = 1,
) -> Tensor:
    """A convolution with its BatchNorm, and ReLU6."""
    return graph.op("Clip", convolution(graph, x, conv, norm, stride, pads, groups, _EPSILON), 0.0, 6.0)


def _pads(size: int, kernel: int, stride: int) -> tuple[int, ...]:
    """Zeros above, left, below, right."""
    before, after = same_padding(size, kernel, stride)
    return before, before, after, after
