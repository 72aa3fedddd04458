"""Transformer blocks shared by both towers. Layout NLD: batch, sequence, width."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ..config import Activation


class QuickGELU(nn.Layer):
    """The sigmoid approximation of GELU that OpenAI's weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Applies elementwise: any shape to the same shape."""
        return x * F.sigmoid(1.702 * x)


def activation_layer(name: Activation) -> nn.Layer:
    """The layer for a config's activation name; "gelu" is the exact GELU, with the error function."""
    return {"quick_gelu": QuickGELU, "gelu": nn.GELU}[name]()


class MultiHeadAttention(nn.Layer):
    """Self-attention with one matrix product for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = width // heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[N, L, D] to [N, L, D]; `mask` [L, L] is added to the scores before the softmax."""
        qkv = self.in_proj(x).reshape([0, 0, 3, self.heads, self.head_dim])  # N L 3D -> N L 3 H d
        q, k, v = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)  # N L 3 H d -> 3 x (N H L d)
        return self.out_proj(merge_heads(attend(q, k, v, mask)))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention of q [N, H, Lq, d] to k and v [N, H, Lk, d]; returns [N, H, Lq, d].

    `F.scaled_dot_product_attention` is not used because Paddle 3.3 cannot export it on a CPU.
    """
    scores = paddle.matmul(q * q.shape[-1] ** -0.5, k, transpose_y=True)  # N H Lq Lk
    if mask is not None:
        scores = scores + mask
    return paddle.matmul(F.softmax(scores, axis=-1), v)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[N, L, H * d] to [N, H, L, d]."""
    x = x.reshape([0, 0, heads, x.shape[-1] // heads])  # N L D -> N L H d
    return x.transpose([0, 2, 1, 3])  # N L H d -> N H L d


def merge_heads(x: Tensor) -> Tensor:
    """[N, H, L, d] to [N, L, H * d]."""
    return x.transpose([0, 2, 1, 3]).flatten(2)  # N H L d -> N L H d -> N L D


class ResidualAttentionBlock(nn.Layer):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, activation: Activation) -> None:
        super().__init__()
        self.attn = MultiHeadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            ("c_fc", nn.Linear(width, 4 * width)),
            ("gelu", activation_layer(activation)),
            ("c_proj", nn.Linear(4 * width, width)),
        )
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[N, L, D] to [N, L, D]."""
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Layer):
    """A stack of residual attention blocks."""

    def __init__(self, width: int, layers: int, heads: int, activation: Activation) -> None:
        super().__init__()
        blocks = [ResidualAttentionBlock(width, heads, activation) for _ in range(layers)]
        self.resblocks = nn.LayerList(blocks)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[N, L, D] to [N, L, D]."""
        for block in self.resblocks:
            x = block(x, mask)
        return x
