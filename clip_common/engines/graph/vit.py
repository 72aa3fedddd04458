"""The graph of a VisionTransformer image tower."""

from __future__ import annotations

import numpy as np

from ...config import Activation, ViTConfig
from .builder import Graph, Tensor
from .layers import Projections, batch_size, block, full_attention, int64, last_block, layer_norm, row


def vit(graph: Graph, image: Tensor, config: ViTConfig, activation: Activation) -> Tensor:
    """Pixels [N, 3, R, R] to features [N, embed_dim]."""

    def attention(x: Tensor, projections: Projections) -> Tensor:
        return full_attention(graph, x, projections, config.heads)

    x = _tokens(graph, image, config)
    x = layer_norm(graph, x, "visual.ln_pre")
    *blocks, last = (f"visual.transformer.resblocks.{number}" for number in range(config.layers))
    for name in blocks:
        x = block(graph, x, name, activation, attention)
    token = last_block(graph, x, last, activation, config.heads, lambda y: row(graph, y, 0))
    return graph.op("MatMul", layer_norm(graph, token, "visual.ln_post"), graph.weight("visual.proj"))


def _tokens(graph: Graph, image: Tensor, config: ViTConfig) -> Tensor:
    """The class token and the patch embeddings, with positions added: [N, 1 + grid**2, D]."""
    positions = graph.weight("visual.positional_embedding")
    first = graph.weight("visual.class_embedding") + positions[0]
    side = [config.patch_size, config.patch_size]
    x = graph.op("Conv", image, graph.weight("visual.conv1.weight"), kernel_shape=side, strides=side)
    x = graph.op("Reshape", x, int64(0, config.width, -1))  # N D grid grid -> N D grid**2
    x = graph.op("Add", graph.op("Transpose", x, perm=[0, 2, 1]), positions[1:])  # N grid**2 D
    shape = graph.op("Concat", batch_size(graph, image), int64(1, config.width), axis=0)
    class_token = graph.op("Expand", np.reshape(first, [1, 1, -1]), shape)  # N 1 D
    return graph.op("Concat", class_token, x, axis=1)
