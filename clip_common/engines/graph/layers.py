"""Layers that the towers share: linear layers, norms, attention and transformer blocks.

Shapes are [N, L, D]: batch, sequence, width; H heads of width d.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from ...config import Activation
from .builder import Graph, Operand, Tensor

HIDDEN = -1e9  # added to the score of a masked token
_QUICK_GELU = 1.702
_NORM_EPSILON = 1e-5


class Linear(NamedTuple):
    """The weight [in, out] and bias [out] of a linear layer, as arrays that may be modified."""

    weight: np.ndarray
    bias: np.ndarray


def read_linear(graph: Graph, name: str, separator: str = ".") -> Linear:
    """Read a linear layer by the name of its tensors; the weight is stored as [out, in]."""
    return Linear(graph.weight(f"{name}{separator}weight").T, graph.weight(f"{name}{separator}bias"))


def read_joined(graph: Graph, names: Iterable[str]) -> Linear:
    """Read several linear layers with the same input as one layer; their outputs are concatenated."""
    layers = [read_linear(graph, name) for name in names]
    return Linear(*(np.concatenate(arrays, axis=-1) for arrays in zip(*layers, strict=True)))


def linear(graph: Graph, x: Tensor, layer: Linear) -> Tensor:
    """[..., in] to [..., out]."""
    return graph.op("Add", graph.op("MatMul", x, layer.weight), layer.bias)


def layer_norm(graph: Graph, x: Tensor, name: str, epsilon: float = _NORM_EPSILON) -> Tensor:
    """LayerNorm over the last axis."""
    weight, bias = graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias")
    return graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=epsilon)


def gelu(graph: Graph, x: Tensor) -> Tensor:
    """The exact GELU, written in the form that both runtimes recognise and fuse into one kernel."""
    one_more = graph.op("Add", graph.op("Erf", graph.op("Div", x, 2**0.5)), 1.0)
    return graph.op("Mul", graph.op("Mul", x, one_more), 0.5)


def mlp(graph: Graph, x: Tensor, name: str, activation: Activation) -> Tensor:
    """Two linear layers with an activation between them.

    QuickGELU, x * sigmoid(1.702 x), becomes SiLU: the factor 1.702 is folded into the layers.
    """
    c_fc, c_proj = read_linear(graph, f"{name}.c_fc"), read_linear(graph, f"{name}.c_proj")
    if activation == "gelu":
        return linear(graph, gelu(graph, linear(graph, x, c_fc)), c_proj)
    hidden = linear(graph, x, Linear(c_fc.weight * _QUICK_GELU, c_fc.bias * _QUICK_GELU))
    hidden = graph.op("Mul", hidden, graph.op("Sigmoid", hidden))
    return linear(graph, hidden, Linear(c_proj.weight / _QUICK_GELU, c_proj.bias))


def int64(*numbers: int) -> np.ndarray:
    """A shape, axes or indices as an operand."""
    return np.array(numbers, np.int64)


def row(graph: Graph, x: Tensor, place: int) -> Tensor:
    """One token of each sequence: [N, L, D] to [N, D]."""
    return graph.op("Gather", x, np.array(place, np.int64), axis=1)


def batch_size(graph: Graph, x: Tensor) -> Tensor:
    """The first size of a tensor, with shape [1]."""
    return graph.op("Shape", x, start=0, end=1)


# --- attention ----------------------------------------------------------------------------------------


class Projections(NamedTuple):
    """The linear layers of an attention; in `qkv`, [D, 3D], queries come first, then keys, then values."""

    qkv: Linear
    out: Linear


def scaled(projections: Projections, heads: int) -> Projections:
    """The same projections, with the attention scale folded into the queries."""
    width = len(projections.qkv.weight)
    scale = np.ones(3 * width, np.float32)
    scale[:width] = (width // heads) ** -0.5
    qkv = Linear(projections.qkv.weight * scale, projections.qkv.bias * scale)
    return Projections(qkv, projections.out)


def read_attention(graph: Graph, name: str) -> Projections:
    """Read an attention in OpenAI's layout."""
    qkv = read_linear(graph, f"{name}.in_proj", "_")
    return Projections(qkv, read_linear(graph, f"{name}.out_proj"))


def split_heads(graph: Graph, qkv: Tensor, shape: Operand) -> list[Tensor]:
    """Split `qkv` [..., 3D] into queries, keys and values, [N, H, L, d] each; `shape` is N L 3 H d."""
    qkv = graph.op("Reshape", qkv, shape)  # ... 3D -> N L 3 H d
    qkv = graph.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])  # N L 3 H d -> 3 N H L d
    parts = graph.ops("Split", 3, qkv, axis=0)
    return [graph.op("Squeeze", part, int64(0)) for part in parts]


def attend(graph: Graph, q: Tensor, k: Tensor, v: Tensor, width: int, mask: Tensor | None = None) -> Tensor:
    """Attention with already scaled queries [N, H, Lq, d], keys and values [N, H, Lk, d], to [N, Lq, D]."""
    scores = graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 1, 3, 2]))  # N H Lq Lk
    if mask is not None:
        scores = graph.op("Add", scores, mask)
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), v)  # N H Lq d
    mixed = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])  # N H Lq d -> N Lq H d
    return graph.op("Reshape", mixed, int64(0, 0, width))


def full_attention(
    graph: Graph, x: Tensor, projections: Projections, heads: int, mask: Tensor | None = None
) -> Tensor:
    """Attention of every token to all tokens, except those masked by `mask` [N, 1, 1, L]; [N, L, D]."""
    qkv, out = scaled(projections, heads)
    width = len(qkv.weight)
    q, k, v = split_heads(graph, linear(graph, x, qkv), int64(0, 0, 3, heads, width // heads))
    return linear(graph, attend(graph, q, k, v, width, mask), out)


def one_query(
    graph: Graph,
    query: Tensor,
    x: Tensor,
    projections: Projections,
    heads: int,
    mask: Tensor | None = None,
) -> Tensor:
    """Attention of one token [N, D] to a sequence [N, L, D], giving [N, D_out]; `mask` is [N, 1, L]."""
    (weight, bias), out = scaled(projections, heads)
    width = len(weight)
    split = (width, heads, width // heads)
    q, k, v = np.split(weight, 3, axis=1)
    k = k.reshape(split).transpose(1, 2, 0)  # D HD -> D H d -> H d D
    v = v.reshape(split).transpose(1, 0, 2)  # D HD -> D H d -> H D d
    asked = linear(graph, query, Linear(q, bias[:width]))  # N D
    asked = graph.op("Reshape", asked, int64(0, *split[1:]))  # N D -> N H d
    asked = graph.op("MatMul", _swap(graph, asked), k)  # H N d, H d D -> H N D
    scores = graph.op("MatMul", _swap(graph, asked), graph.op("Transpose", x, perm=[0, 2, 1]))  # N H L
    if mask is not None:
        scores = graph.op("Add", scores, mask)
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), x)  # N H D
    mixed = _swap(graph, graph.op("MatMul", _swap(graph, mixed), v))  # H N D, H D d -> N H d
    mixed = graph.op("Reshape", mixed, int64(0, width))  # N H d -> N D
    return linear(graph, graph.op("Add", mixed, bias[2 * width :]), out)


def _swap(graph: Graph, x: Tensor) -> Tensor:
    """Swap the first two axes: [N, H, d] to [H, N, d]."""
    return graph.op("Transpose", x, perm=[1, 0, 2])


# --- blocks of OpenAI's transformers ------------------------------------------------------------------


def block(
    graph: Graph,
    x: Tensor,
    name: str,
    activation: Activation,
    attention: Callable[[Tensor, Projections], Tensor],
) -> Tensor:
    """A pre-norm block over all tokens; `attention` computes its attention from the normalised input."""
    seen = attention(layer_norm(graph, x, f"{name}.ln_1"), read_attention(graph, f"{name}.attn"))
    x = graph.op("Add", x, seen)
    return graph.op("Add", x, mlp(graph, layer_norm(graph, x, f"{name}.ln_2"), f"{name}.mlp", activation))


def last_block(
    graph: Graph,
    x: Tensor,
    name: str,
    activation: Activation,
    heads: int,
    read: Callable[[Tensor], Tensor],
    mask: Tensor | None = None,
) -> Tensor:
    """A block that computes only one token, the one that `read` selects: [N, L, D] to [N, D]."""
    h = layer_norm(graph, x, f"{name}.ln_1")
    seen = one_query(graph, read(h), h, read_attention(graph, f"{name}.attn"), heads, mask)
    token = graph.op("Add", read(x), seen)
    fed = mlp(graph, layer_norm(graph, token, f"{name}.ln_2"), f"{name}.mlp", activation)
    return graph.op("Add", token, fed)
