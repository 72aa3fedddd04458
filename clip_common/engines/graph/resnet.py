"""The graph of a ModifiedResNet image tower."""

from __future__ import annotations

from ...config import ResNetConfig
from .builder import Graph, Tensor
from .convolutions import convolution
from .layers import Projections, int64, one_query, read_joined, read_linear, row

_AROUND = (1, 1, 1, 1)


def resnet(graph: Graph, image: Tensor, config: ResNetConfig) -> Tensor:
    """Pixels [N, 3, R, R] to features [N, embed_dim]."""
    x = image
    for number, stride in ((1, 2), (2, 1), (3, 1)):
        x = convolution(graph, x, f"visual.conv{number}", f"visual.bn{number}", stride, _AROUND)
        x = graph.op("Relu", x)
    x = _pool(graph, x, 2)  # N width R/4 R/4
    for stage, blocks in enumerate(config.layers):
        for number in range(blocks):
            halves = stage > 0 and number == 0
            x = _bottleneck(graph, x, f"visual.layer{stage + 1}.{number}", 2 if halves else 1, number == 0)
    return _attention_pool(graph, x, config)


def _bottleneck(graph: Graph, x: Tensor, name: str, stride: int, changes_width: bool) -> Tensor:
    """[N, C, H, W] to [N, C', H / stride, W / stride]; strides are average pools."""
    identity = x
    if changes_width:
        identity = _pool(graph, x, stride)
        identity = convolution(graph, identity, f"{name}.downsample.0", f"{name}.downsample.1")
    x = graph.op("Relu", convolution(graph, x, f"{name}.conv1", f"{name}.bn1"))
    x = graph.op("Relu", convolution(graph, x, f"{name}.conv2", f"{name}.bn2", 1, _AROUND))
    x = convolution(graph, _pool(graph, x, stride), f"{name}.conv3", f"{name}.bn3")
    return graph.op("Relu", graph.op("Add", x, identity))


def _pool(graph: Graph, x: Tensor, stride: int) -> Tensor:
    if stride == 1:
        return x
    return graph.op("AveragePool", x, kernel_shape=[stride, stride], strides=[stride, stride])


def _attention_pool(graph: Graph, x: Tensor, config: ResNetConfig) -> Tensor:
    """Attention pooling: the mean of the grid is the query, [N, C, H, W] to [N, embed_dim]."""
    x = graph.op("Reshape", x, int64(0, config.output_width, -1))  # N C H W -> N C HW
    x = graph.op("Transpose", x, perm=[0, 2, 1])  # N HW C
    x = graph.op("Concat", graph.op("ReduceMean", x, axes=[1], keepdims=1), x, axis=1)  # N (1 + HW) C
    x = graph.op("Add", x, graph.weight("visual.attnpool.positional_embedding"))
    qkv = read_joined(graph, (f"visual.attnpool.{part}_proj" for part in "qkv"))
    projections = Projections(qkv, read_linear(graph, "visual.attnpool.c_proj"))
    return one_query(graph, row(graph, x, 0), x, projections, config.heads)
