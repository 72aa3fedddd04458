"""BERT as a text tower: a post-norm transformer with bidirectional attention (Devlin et al. 2018).

Layers have the names of BERT's own state dicts, which Chinese-CLIP uses too.
"""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn

from ..config import BertConfig
from .transformer import attend, merge_heads, split_heads

_PADDING = 0  # token id of the padding after a text
_NORM_EPSILON = 1e-12
_HIDDEN = -1e9  # added to the score of a masked token


class Bert(nn.Layer):
    """Token ids to the states of the last layer. BERT's pooler is left out."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)

    def forward(self, text: Tensor) -> Tensor:
        """Token ids, int64 [N, L], padded after their end token, to states [N, L, D]."""
        return self.encoder(self.embeddings(text), padding_mask(text))


def padding_mask(text: Tensor) -> Tensor:
    """The attention mask that hides padding, to add to the scores: token ids [N, L] to [N, 1, 1, L]."""
    is_padding = (text == _PADDING).astype("float32")  # N L
    return (is_padding * _HIDDEN).unsqueeze([1, 2])  # N L -> N 1 1 L


class _Embeddings(nn.Layer):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.width)
        self.position_embeddings = nn.Embedding(config.positions, config.width)
        self.token_type_embeddings = nn.Embedding(config.token_types, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, epsilon=_NORM_EPSILON)

    def forward(self, text: Tensor) -> Tensor:
        x = self.word_embeddings(text) + self.position_embeddings.weight[: text.shape[1]]  # N L D
        return self.LayerNorm(x + self.token_type_embeddings.weight[0])  # type 0: a single text, not a pair


class _Encoder(nn.Layer):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.LayerList([BertBlock(config.width, config.heads) for _ in range(config.layers)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.layer:
            x = block(x, mask)
        return x


class BertBlock(nn.Layer):
    """A post-norm transformer block with the exact GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.intermediate = nn.Sequential(("dense", nn.Linear(width, 4 * width)))
        self.output = _AddAndNorm(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[N, L, D] to [N, L, D]; `mask` is added to the scores before the softmax."""
        x = self.attention(x, mask)
        return self.output(F.gelu(self.intermediate(x)), x)


class _Attention(nn.Layer):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self = _SelfAttention(width, heads)
        self.output = _AddAndNorm(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.output(self.self(x, mask), x)


class _SelfAttention(nn.Layer):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (split_heads(layer(x), self.heads) for layer in (self.query, self.key, self.value))
        return merge_heads(attend(q, k, v, mask))


class _AddAndNorm(nn.Layer):
    """A linear layer, a residual connection and LayerNorm."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, epsilon=_NORM_EPSILON)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + before)
