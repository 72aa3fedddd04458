"""The two towers as they are run: the model's arithmetic, rewritten exactly into less of it.

What is read at the end is one token's: the class token, the pool's mean, the text's end token. So the last
attention has one query, and needs neither keys nor values of the sequence: with x the sequence, and one
head's projections q, k, v,

    softmax(q (x Wk + bk)') (x Wv + bv)  =  (softmax((q Wk') x') x) Wv + bv

since q bk' is the same for every token, and the weights of a softmax sum to one. Everything after that
attention runs on one token too. On ViT-B/32 and both ResNets this is about a twelfth of the image tower.
Further, BatchNorm is folded into the convolution before it, the scale of attention into the queries, and
1.702 of QuickGELU into the weights around it, which leaves SiLU. In a BERT every token sees every other, so
nothing is shared between texts; there queries, keys and values become one product.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.static import InputSpec

from ..config import BertConfig
from ..models.bert import BertBlock, padding_mask
from ..models.clip import CLIP
from ..models.resnet import AttentionPool2D, Bottleneck, ModifiedResNet
from ..models.transformer import MultiHeadAttention, QuickGELU, ResidualAttentionBlock, merge_heads
from ..models.vit import VisionTransformer

_QUICK_GELU = 1.702


def towers(model: CLIP) -> dict[str, tuple[nn.Layer, list[InputSpec]]]:
    """Both towers by name, in eval mode, each with the shapes of what it takes."""
    size = model.config.image_resolution
    prefix, suffix = InputSpec([None], "int64", "prefix"), InputSpec([None, None], "int64", "suffix")
    made: dict[str, tuple[nn.Layer, list[InputSpec]]] = {
        "image": (ImageTower(model), [InputSpec([None, 3, size, size], "float32", "image")]),
    }
    if isinstance(model.config.text, BertConfig):
        made["text"] = (BertTextTower(model), [InputSpec([None, None], "int64", "text")])
    else:
        made["text"] = (TextTower(model), [prefix, suffix])
    for tower, _ in made.values():
        tower.eval()
    return made


def probe(model: CLIP, tower: str) -> tuple[list[np.ndarray], np.ndarray]:
    """What a tower may be asked, and what the model itself answers."""
    config, rng = model.config, np.random.default_rng(0)
    with paddle.no_grad():
        if tower == "image":
            size = config.image_resolution
            pixels = rng.standard_normal([2, 3, size, size], np.float32)
            return [pixels], model.encode_image(paddle.to_tensor(pixels)).numpy()
        ids = rng.integers(1, config.text.vocab_size - 1, [3, 9])
        if isinstance(config.text, BertConfig):
            ids[1, 7:], ids[2, 4:] = 0, 0  # padding
            return [ids], model.encode_text(paddle.to_tensor(ids)).numpy()
        ids[:, :3] = ids[0, :3]
        ids[range(3), [8, 4, 3]] = config.text.vocab_size - 1  # the end token
        return [ids[0, :3], ids[:, 3:]], model.encode_text(paddle.to_tensor(ids)).numpy()


class ImageTower(nn.Layer):
    """Pixels [N, 3, R, R] to features [N, embed_dim], as `CLIP.encode_image`."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        visual = model.visual
        self.tower = _ResNet(visual) if isinstance(visual, ModifiedResNet) else _ViT(visual)

    def forward(self, image: Tensor) -> Tensor:
        """Pixels to features."""
        return self.tower(image)


class TextTower(nn.Layer):
    """Texts to features [N, embed_dim], as `CLIP.encode_text`.

    They come as the token ids [B] that all of them begin with, and the suffix [N, L] of each, B + L up to the
    context length. Attention is causal, so what the prefix gives is the same for all, and computed once:
    everything but attention runs on B + N L tokens.
    """

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        *blocks, last = model.transformer.resblocks
        self.token_embedding = model.token_embedding
        self.positional_embedding = model.positional_embedding
        self.blocks = nn.LayerList([_Block(block, _TextAttention(block.attn)) for block in blocks])
        self.last = _LastBlock(last)
        self.ln_final = model.ln_final
        self.text_projection = model.text_projection
        self.register_buffer("causal_mask", model.causal_mask, persistable=True)

    def forward(self, prefix: Tensor, suffix: Tensor) -> Tensor:
        """Token ids to features."""
        shared, length = prefix.shape[0], suffix.shape[1]
        whole = shared + length
        x = self.token_embedding(prefix) + self.positional_embedding[:shared]  # B D
        y = self.token_embedding(suffix) + self.positional_embedding[shared:whole]  # N L D
        width = y.shape[-1]
        tokens = paddle.concat([x, y.reshape([-1, width])])  # B D, N L D -> (B + NL) D
        mask = self.causal_mask[:whole, :whole]
        for block in self.blocks:
            tokens = block(tokens, shared, length, mask)
        x, y = tokens[:shared], tokens[shared:].reshape([-1, length, width])  # (B + NL) D -> B D, N L D
        x = x + paddle.zeros_like(y[:, :1])  # B D -> N B D
        place = suffix.argmax(axis=-1, keepdim=True) + shared  # N 1, of the end token
        position = paddle.arange(whole)
        is_end = (place == position).astype(y.dtype).unsqueeze(1)  # N 1 (B + L)
        beyond = (position > place).astype(y.dtype).unsqueeze(1) * -1e9  # N 1 (B + L)
        token = self.last(paddle.concat([x, y], axis=1), is_end, beyond)
        return paddle.matmul(self.ln_final(token), self.text_projection)


class BertTextTower(nn.Layer):
    """Texts [N, L], padded to the longest of them or further, to features [N, embed_dim], as
    `CLIP.encode_text`."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        embeddings = model.bert.embeddings
        *blocks, last = model.bert.encoder.layer
        self.word_embeddings, self.norm = embeddings.word_embeddings, embeddings.LayerNorm
        positions = embeddings.position_embeddings.weight[: model.config.text.context_length]
        self.register_buffer("positions", positions + embeddings.token_type_embeddings.weight[0])
        self.blocks = nn.LayerList([_BertBlock(block) for block in blocks])
        self.last = _LastBertBlock(last)
        self.text_projection = model.text_projection

    def forward(self, text: Tensor) -> Tensor:
        """Token ids to features."""
        mask = padding_mask(text)  # N 1 1 L
        x = self.norm(self.word_embeddings(text) + self.positions[: text.shape[1]])  # N L D
        for block in self.blocks:
            x = block(x, mask)
        return paddle.matmul(self.last(x, mask.squeeze(1)), self.text_projection)


class _BertBlock(nn.Layer):
    """A post-norm transformer block over all tokens."""

    def __init__(self, block: BertBlock) -> None:
        super().__init__()
        self.attn = _FullAttention(_with_one_product(block))
        self.attn_norm = block.attention.output.LayerNorm
        self.c_fc, self.c_proj = block.intermediate.dense, block.output.dense
        self.norm = block.output.LayerNorm

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attn_norm(self.attn(x, mask) + x)
        return self.norm(self.c_proj(F.gelu(self.c_fc(x))) + x)


class _LastBertBlock(_BertBlock):
    """The same, of which the first token is read: [N, L, D] to [N, D], given a mask [N, 1, L]."""

    def __init__(self, block: BertBlock) -> None:
        super().__init__(block)
        self.attn = _one_query(_with_one_product(block))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        token = x[:, 0]  # N L D -> N D
        token = self.attn_norm(self.attn(token, x, mask) + token)
        return self.norm(self.c_proj(F.gelu(self.c_fc(token))) + token)


def _with_one_product(block: BertBlock) -> MultiHeadAttention:
    """A BERT block's attention, with one product for queries, keys and values."""
    own = block.attention.self
    parts = (own.query, own.key, own.value)
    fused = MultiHeadAttention(own.heads * own.head_dim, own.heads)
    fused.in_proj.weight.set_value(paddle.concat([part.weight for part in parts], axis=1))
    fused.in_proj.bias.set_value(paddle.concat([part.bias for part in parts]))
    fused.out_proj = block.attention.output.dense
    return fused


class _ViT(nn.Layer):
    def __init__(self, visual: VisionTransformer) -> None:
        super().__init__()
        *blocks, last = visual.transformer.resblocks
        self.conv1 = visual.conv1
        self.ln_pre = visual.ln_pre
        self.ln_post = visual.ln_post
        self.proj = visual.proj
        self.blocks = nn.LayerList([_Block(block, _FullAttention(block.attn)) for block in blocks])
        self.last = _LastBlock(last)
        positions = visual.positional_embedding
        self.register_buffer("class_token", visual.class_embedding + positions[0])
        self.register_buffer("positions", positions[1:].clone())
        first = paddle.zeros([1, 1, positions.shape[0]])
        first[0, 0, 0] = 1
        self.register_buffer("is_class", first)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv1(image).flatten(2).transpose([0, 2, 1])  # N D grid grid -> N grid**2 D
        class_token = paddle.zeros_like(x[:, :1]) + self.class_token  # N 1 D
        x = self.ln_pre(paddle.concat([class_token, x + self.positions], axis=1))  # N (1 + grid**2) D
        for block in self.blocks:
            x = block(x)
        return paddle.matmul(self.ln_post(self.last(x)), self.proj)


class _ResNet(nn.Layer):
    def __init__(self, visual: ModifiedResNet) -> None:
        super().__init__()
        self.stem = nn.LayerList(
            [_folded(getattr(visual, f"conv{i}"), getattr(visual, f"bn{i}")) for i in (1, 2, 3)]
        )
        self.avgpool = visual.avgpool
        stages = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        self.blocks = nn.LayerList([_Bottleneck(block) for stage in stages for block in stage])
        self.attnpool = _AttentionPool(visual.attnpool)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for conv in self.stem:
            x = F.relu(conv(x))
        x = self.avgpool(x)
        for block in self.blocks:
            x = block(x)
        return self.attnpool(x)


class _Bottleneck(nn.Layer):
    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1 = _folded(block.conv1, block.bn1)
        self.conv2 = _folded(block.conv2, block.bn2)
        self.conv3 = _folded(block.conv3, block.bn3)
        self.avgpool = block.avgpool
        self.downsample = None
        if block.downsample is not None:
            pool, conv, norm = block.downsample.children()
            self.downsample = nn.Sequential(pool, _folded(conv, norm))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.conv1(x))
        x = self.avgpool(F.relu(self.conv2(x)))
        return F.relu(self.conv3(x) + identity)


def _folded(conv: nn.Conv2D, norm: nn.BatchNorm2D) -> nn.Conv2D:
    """A convolution that does its BatchNorm's work too; computed in float64."""
    scale = norm.weight.astype("float64") / (norm._variance.astype("float64") + norm._epsilon).sqrt()
    weight = conv.weight.astype("float64") * scale.reshape([-1, 1, 1, 1])
    bias = norm.bias.astype("float64") - norm._mean.astype("float64") * scale
    out_channels, in_channels, size, _ = conv.weight.shape
    folded = nn.Conv2D(in_channels, out_channels, size, conv._stride, conv._padding)
    folded.weight.set_value(weight.astype("float32"))
    folded.bias.set_value(bias.astype("float32"))
    return folded


class _Block(nn.Layer):
    """A transformer block over all tokens; `attn` tells which see which."""

    def __init__(self, block: ResidualAttentionBlock, attn: nn.Layer) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = block.ln_1, block.ln_2
        self.attn = attn
        self.mlp = _MLP(block)

    def forward(self, x: Tensor, *sequences: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), *sequences)
        return x + self.mlp(self.ln_2(x))


class _Attention(nn.Layer):
    """The projections of attention, the scale folded into the queries'."""

    def __init__(self, attention: MultiHeadAttention) -> None:
        super().__init__()
        self.heads, self.head_dim = attention.heads, attention.head_dim
        scale = paddle.ones([3 * self.heads * self.head_dim])
        scale[: self.heads * self.head_dim] = self.head_dim**-0.5
        self.in_proj = _linear(attention.in_proj.weight * scale, attention.in_proj.bias * scale)
        self.out_proj = attention.out_proj

    def heads_of(self, qkv: Tensor, length: Tensor | int) -> list[Tensor]:
        """Queries, keys and values of sequences of so many tokens."""
        qkv = qkv.reshape([-1, length, 3, self.heads, self.head_dim])  # ... 3D -> N L 3 H d
        return qkv.transpose([2, 0, 3, 1, 4]).unbind(0)  # N L 3 H d -> 3 x (N H L d)


class _FullAttention(_Attention):
    """Every token sees every other, less what a mask [N, 1, 1, L] hides: [N, L, D] to [N, L, D]."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.heads_of(self.in_proj(x), x.shape[1])
        return self.out_proj(_attend(q, k, v, mask))


class _TextAttention(_Attention):
    """The prefix of texts sees itself, and each suffix sees the prefix and itself.

    [B + NL, D] to [B + NL, D], given B, L and the mask [B + L, B + L], which is added to the scores.
    """

    def forward(self, x: Tensor, shared: Tensor, length: Tensor, mask: Tensor) -> Tensor:
        qkv = self.in_proj(x)  # (B + NL) 3D
        q, k, v = self.heads_of(qkv[:shared], shared)  # 1 H B d
        prefix = _attend(q, k, v, mask[:shared, :shared])  # 1 B D
        q, own_k, own_v = self.heads_of(qkv[shared:], length)  # N H L d
        nothing = paddle.zeros_like(q[:, :, :1])  # N H 1 d, by which the prefix's go to all texts
        k = paddle.concat([k + nothing, own_k], axis=2)  # N H (B + L) d
        v = paddle.concat([v + nothing, own_v], axis=2)
        suffix = _attend(q, k, v, mask[shared:])  # N L D
        return self.out_proj(paddle.concat([prefix.flatten(0, 1), suffix.flatten(0, 1)]))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of queries that are scaled already: N H Lq d over N H Lk d to N Lq D."""
    scores = paddle.matmul(q, k, transpose_y=True)  # N H Lq Lk
    if mask is not None:
        scores = scores + mask
    return merge_heads(paddle.matmul(F.softmax(scores, axis=-1), v))


class _MLP(nn.Layer):
    def __init__(self, block: ResidualAttentionBlock) -> None:
        super().__init__()
        self.c_fc, activation, self.c_proj = block.mlp.children()
        self.is_quick = isinstance(activation, QuickGELU)
        if self.is_quick:
            c_fc, c_proj = self.c_fc, self.c_proj
            self.c_fc = _linear(c_fc.weight * _QUICK_GELU, c_fc.bias * _QUICK_GELU)
            self.c_proj = _linear(c_proj.weight / _QUICK_GELU, c_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        return self.c_proj(x * F.sigmoid(x) if self.is_quick else F.gelu(x))


class _LastBlock(nn.Layer):
    """A transformer block of which one token is read: [N, L, D] to [N, D].

    `is_read` [N, 1, L] is one at that token; left out, it is the first. `mask` [N, 1, L] is added to its
    scores.
    """

    def __init__(self, block: ResidualAttentionBlock) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = block.ln_1, block.ln_2
        self.attn = _one_query(block.attn)
        self.mlp = _MLP(block)

    def forward(self, x: Tensor, is_read: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        h = self.ln_1(x)
        if is_read is None:
            token, query = x[:, 0], h[:, 0]  # N D
        else:
            token, query = (paddle.matmul(is_read, y).squeeze(1) for y in (x, h))  # N 1 L, N L D -> N D
        token = token + self.attn(query, h, mask)
        return token + self.mlp(self.ln_2(token))


def _one_query(attention: MultiHeadAttention) -> _OneQuery:
    q, k, v = attention.in_proj.weight.chunk(3, axis=1)
    q_bias, _, v_bias = attention.in_proj.bias.chunk(3)
    return _OneQuery(attention.heads, (q, q_bias), k, (v, v_bias), attention.out_proj)


class _AttentionPool(nn.Layer):
    def __init__(self, pool: AttentionPool2D) -> None:
        super().__init__()
        q, v = ((layer.weight, layer.bias) for layer in (pool.q_proj, pool.v_proj))
        self.positional_embedding = pool.positional_embedding
        self.attn = _OneQuery(pool.heads, q, pool.k_proj.weight, v, pool.c_proj)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose([0, 2, 1])  # N C H W -> N HW C
        x = paddle.concat([x.mean(axis=1, keepdim=True), x], axis=1)  # N (1 + HW) C
        x = x + self.positional_embedding
        return self.attn(x[:, 0], x)


class _OneQuery(nn.Layer):
    """Attention of one token over a sequence: query [N, D] and sequence [N, L, D] to [N, D_out]."""

    def __init__(
        self,
        heads: int,
        q: tuple[Tensor, Tensor],
        k_weight: Tensor,
        v: tuple[Tensor, Tensor],
        out_proj: nn.Linear,
    ) -> None:
        super().__init__()
        width = k_weight.shape[0]
        self.heads, self.head_dim = heads, width // heads
        scale = self.head_dim**-0.5
        self.q_proj = _linear(q[0] * scale, q[1] * scale)
        split = [width, heads, self.head_dim]
        self.register_buffer("k", k_weight.reshape(split).transpose([1, 2, 0]))  # D HD -> D H d -> H d D
        self.register_buffer("v", v[0].reshape(split).transpose([1, 0, 2]))  # D HD -> D H d -> H D d
        self.register_buffer("v_bias", v[1].clone())
        self.out_proj = out_proj

    def forward(self, query: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q = self.q_proj(query).reshape([-1, self.heads, self.head_dim])  # N D -> N H d
        q = paddle.matmul(q.transpose([1, 0, 2]), self.k).transpose([1, 0, 2])  # H N d, H d D -> N H D
        scores = paddle.matmul(q, x, transpose_y=True)  # N H L
        if mask is not None:
            scores = scores + mask
        mean = paddle.matmul(F.softmax(scores, axis=-1), x)  # N H D
        v = paddle.matmul(mean.transpose([1, 0, 2]), self.v)  # H N D, H D d -> H N d
        v = v.transpose([1, 0, 2]).flatten(1)  # H N d -> N H d -> N D
        return self.out_proj(v + self.v_bias)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[0], weight.shape[1])
    linear.weight.set_value(weight)
    linear.bias.set_value(bias)
    return linear
