"""The graph of CLIP's text transformer.

The inputs are the token ids [B] that all texts begin with, and the rest of each text [N, L]; B + L is at most
the context length. Attention is causal, so the prefix gives the same results for all texts and is computed
once: everything but attention runs on B + N L tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...config import Activation, TextConfig
from .builder import Graph, Operand, Tensor
from .layers import (
    HIDDEN,
    Projections,
    attend,
    batch_size,
    block,
    int64,
    last_block,
    layer_norm,
    linear,
    scaled,
    split_heads,
)


class _Sizes(NamedTuple):
    """The sizes of a call, each a tensor of shape [1]."""

    shared: Tensor  # B, tokens of the prefix
    texts: Tensor  # N
    length: Tensor  # L, tokens of a suffix
    whole: Tensor  # B + L


def causal_text(graph: Graph, config: TextConfig, activation: Activation) -> Tensor:
    """Token ids, prefix [B] and suffix [N, L], to features [N, embed_dim]."""
    prefix = graph.input("prefix", np.int64, ["B"])
    suffix = graph.input("suffix", np.int64, ["N", "L"])
    shared, length = batch_size(graph, prefix), graph.op("Shape", suffix, start=1, end=2)
    sizes = _Sizes(shared, batch_size(graph, suffix), length, graph.op("Add", shared, length))
    tokens = _tokens(graph, prefix, suffix, sizes, config.width)
    attention = _Attention(graph, config, sizes)
    *blocks, last = (f"transformer.resblocks.{number}" for number in range(config.layers))
    for name in blocks:
        tokens = block(graph, tokens, name, activation, attention)
    is_end, beyond = _end(graph, suffix, sizes, config.context_length)

    def read(x: Tensor) -> Tensor:  # N 1 (B + L), N (B + L) D -> N D
        return graph.op("Squeeze", graph.op("MatMul", is_end, x), int64(1))

    x = _texts(graph, tokens, sizes, config.width)
    token = last_block(graph, x, last, activation, config.heads, read, beyond)
    return graph.op("MatMul", layer_norm(graph, token, "ln_final"), graph.weight("text_projection"))


def _tokens(graph: Graph, prefix: Tensor, suffix: Tensor, sizes: _Sizes, width: int) -> Tensor:
    """The embeddings of the prefix, then of all suffixes, with positions added: [B + NL, D]."""
    table = graph.constant(graph.weight("token_embedding.weight"))
    positions = graph.constant(graph.weight("positional_embedding"))
    x = graph.op("Add", graph.op("Gather", table, prefix), _part(graph, positions, int64(0), sizes.shared))
    own = _part(graph, positions, sizes.shared, sizes.whole)
    y = graph.op("Add", graph.op("Gather", table, suffix), own)  # N L D
    y = graph.op("Reshape", y, int64(-1, width))  # N L D -> NL D
    return graph.op("Concat", x, y, axis=0)


def _texts(graph: Graph, tokens: Tensor, sizes: _Sizes, width: int) -> Tensor:
    """Rearrange these tokens, [B + NL, D], into whole texts, [N, B + L, D]."""
    x, y = _prefix_and_suffixes(graph, tokens, sizes)
    y = graph.op("Reshape", y, _shape(graph, -1, sizes.length, width))  # NL D -> N L D
    x = graph.op("Unsqueeze", x, int64(0))  # B D -> 1 B D
    x = graph.op("Expand", x, _shape(graph, sizes.texts, 1, 1))  # 1 B D -> N B D
    return graph.op("Concat", x, y, axis=1)


def _end(graph: Graph, suffix: Tensor, sizes: _Sizes, context_length: int) -> tuple[Tensor, Tensor]:
    """Two tensors [N, 1, B + L]: 1 at each text's end token, else 0; and a mask for the tokens after it."""
    place = graph.op("Add", graph.op("ArgMax", suffix, axis=-1, keepdims=1), sizes.shared)  # N 1
    position = _part(graph, np.arange(context_length), int64(0), sizes.whole)
    is_end = graph.op("Cast", graph.op("Equal", place, position), to=1)  # float32
    is_beyond = graph.op("Cast", graph.op("Greater", position, place), to=1)
    beyond = graph.op("Mul", is_beyond, HIDDEN)
    return graph.op("Unsqueeze", is_end, int64(1)), graph.op("Unsqueeze", beyond, int64(1))


class _Attention:
    """Causal attention, [B + NL, D] to [B + NL, D]: each suffix attends to the prefix and to itself."""

    def __init__(self, graph: Graph, config: TextConfig, sizes: _Sizes) -> None:
        self._graph, self._heads, self._width, self._sizes = graph, config.heads, config.width, sizes
        causal = np.triu(np.full([config.context_length] * 2, -np.inf, np.float32), k=1)
        mask = graph.constant(causal)
        self._prefix_mask = graph.op(
            "Slice", mask, int64(0, 0), _shape(graph, sizes.shared, sizes.shared), int64(0, 1)
        )
        starts, ends = _shape(graph, sizes.shared, 0), _shape(graph, sizes.whole, sizes.whole)
        self._suffix_mask = graph.op("Slice", mask, starts, ends, int64(0, 1))
        split = (3, config.heads, config.width // config.heads)
        self._prefix_split = _shape(graph, 1, sizes.shared, *split)
        self._suffix_split = _shape(graph, -1, sizes.length, *split)
        nothing = np.zeros([1, 1, 1, 1], np.float32)
        self._nothing = graph.op("Expand", nothing, _shape(graph, sizes.texts, 1, 1, 1))  # N 1 1 1

    def __call__(self, x: Tensor, projections: Projections) -> Tensor:
        graph, width = self._graph, self._width
        qkv, out = scaled(projections, self._heads)
        prefix, suffix = _prefix_and_suffixes(graph, linear(graph, x, qkv), self._sizes)
        q, k, v = split_heads(graph, prefix, self._prefix_split)  # 1 H B d
        seen = attend(graph, q, k, v, width, self._prefix_mask)  # 1 B D
        q, *own = split_heads(graph, suffix, self._suffix_split)  # N H L d
        k, v = (self._whole(shared, part) for shared, part in zip((k, v), own, strict=True))
        own_seen = attend(graph, q, k, v, width, self._suffix_mask)  # N L D
        flat = [graph.op("Reshape", part, int64(-1, width)) for part in (seen, own_seen)]  # B D, NL D
        return linear(graph, graph.op("Concat", *flat, axis=0), out)

    def _whole(self, shared: Tensor, own: Tensor) -> Tensor:
        """Join the keys (or values) of the prefix, 1 H B d, with those of each suffix, N H L d.

        The prefix is repeated by adding zeros of a larger shape: in OpenVINO this is faster than `Expand`.
        """
        for_each = self._graph.op("Add", shared, self._nothing)  # N H B d
        return self._graph.op("Concat", for_each, own, axis=2)  # N H (B + L) d


def _prefix_and_suffixes(graph: Graph, tokens: Tensor, sizes: _Sizes) -> tuple[Tensor, Tensor]:
    """Split [B + NL, ...] into [B, ...] and [NL, ...]."""
    whole = graph.op("Shape", tokens, start=0, end=1)
    return _part(graph, tokens, int64(0), sizes.shared), _part(graph, tokens, sizes.shared, whole)


def _part(graph: Graph, x: Operand, start: Operand, stop: Operand) -> Tensor:
    """Rows `start` to `stop` of the first axis."""
    return graph.op("Slice", x, start, stop, int64(0))


def _shape(graph: Graph, *sizes: Tensor | int) -> Tensor:
    """A shape from fixed sizes (int) and dynamic sizes (tensors of shape [1])."""
    known = [int64(size) if isinstance(size, int) else size for size in sizes]
    return graph.op("Concat", *known, axis=0)
