"""The graph of a BERT text tower."""

from __future__ import annotations

import numpy as np

from ...config import BertConfig
from .builder import Graph, Tensor
from .layers import (
    HIDDEN,
    Projections,
    full_attention,
    gelu,
    int64,
    layer_norm,
    linear,
    one_query,
    read_joined,
    read_linear,
    row,
)

_PADDING = 0  # token id of the padding after a text
_NORM_EPSILON = 1e-12


def bert_text(graph: Graph, config: BertConfig) -> Tensor:
    """Token ids [N, L], padded to the length of the longest text or more, to features [N, embed_dim]."""
    text = graph.input("text", np.int64, ["N", "L"])
    is_padding = graph.op("Cast", graph.op("Equal", text, np.array(_PADDING, np.int64)), to=1)  # float32
    mask = graph.op("Unsqueeze", graph.op("Mul", is_padding, HIDDEN), int64(1))  # N 1 L
    mask_of_heads = graph.op("Unsqueeze", mask, int64(1))  # N 1 1 L
    x = _tokens(graph, text, config)
    *blocks, last = (f"bert.encoder.layer.{number}" for number in range(config.layers))
    for name in blocks:
        seen = full_attention(graph, x, _attention(graph, name), config.heads, mask_of_heads)
        x = _rest_of_block(graph, x, seen, name)
    token = row(graph, x, 0)  # the output depends on this token only
    seen = one_query(graph, token, x, _attention(graph, last), config.heads, mask)
    token = _rest_of_block(graph, token, seen, last)
    return graph.op("MatMul", token, graph.weight("text_projection"))


def _tokens(graph: Graph, text: Tensor, config: BertConfig) -> Tensor:
    """Token embeddings plus position embeddings and the type embedding of a single text: [N, L, D]."""
    embeddings = "bert.embeddings"
    words = graph.op("Gather", graph.weight(f"{embeddings}.word_embeddings.weight"), text)
    positions = graph.weight(f"{embeddings}.position_embeddings.weight")[: config.context_length]
    positions += graph.weight(f"{embeddings}.token_type_embeddings.weight")[0]
    length = graph.op("Shape", text, start=1, end=2)
    x = graph.op("Add", words, graph.op("Slice", positions, int64(0), length, int64(0)))
    return layer_norm(graph, x, f"{embeddings}.LayerNorm", _NORM_EPSILON)


def _attention(graph: Graph, name: str) -> Projections:
    """The attention weights of a block; queries, keys and values are joined into one linear layer."""
    qkv = read_joined(graph, (f"{name}.attention.self.{part}" for part in ("query", "key", "value")))
    return Projections(qkv, read_linear(graph, f"{name}.attention.output.dense"))


def _rest_of_block(graph: Graph, x: Tensor, seen: Tensor, name: str) -> Tensor:
    """The part of a post-norm block after its attention; `seen` is the attention's output, [..., D]."""
    x = layer_norm(graph, graph.op("Add", seen, x), f"{name}.attention.output.LayerNorm", _NORM_EPSILON)
    hidden = gelu(graph, linear(graph, x, read_linear(graph, f"{name}.intermediate.dense")))
    fed = linear(graph, hidden, read_linear(graph, f"{name}.output.dense"))
    return layer_norm(graph, graph.op("Add", fed, x), f"{name}.output.LayerNorm", _NORM_EPSILON)
