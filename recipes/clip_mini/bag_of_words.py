"""Texts as bags of words, and a text tower that computes them.

Every token has a vector, its part, and the embedding of a text has the direction of the sum of its tokens'
parts: "tabby cat" has the direction of "tabby" plus "cat". The initial parts come from a weighted ridge
regression: their sums are as near as possible to the directions of nouns and of the subjects of drawings.
Parts are coordinates on the principal components of these directions; the tower has room for `width - 2`
components. The words of templates ("a photo of a") have no part.

The text tower computes the sum with its first attention (`write_parts`). Each position adds the same
constant, so that the first layer norm scales all tokens in a known way (`_undo_norm`). Attention weighs all
tokens equally and passes their values on; the layers after it add nothing. So word order has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.geometric import segment_sum

from clip_common.models.clip import CLIP
from clip_common.text.tokenizer import tokenize
from clip_common.zero_shot.scoring import l2_normalize

from .captions import TEMPLATES, plural
from .nouns import WHOLLY, Nouns
from .subjects import Subjects
from .vocabulary import rows_in

RIDGE = 0.02
ITERATIONS = 25
ALONE = 5.0  # weight factor of a noun of one token: that token hardly occurs elsewhere
PLURAL = 0.2  # weight factor of a plural
LEAST_WEIGHT = 0.02
RARE = 0.1  # nouns of several tokens below this weight are left to training
DRAWN = 0.3  # weight of drawings when choosing components; nouns have weight 1
DRAWN_NOUN = 0.1  # weight factor of a drawing whose subject is a noun: its direction is known
CONSTANT = 2.0  # length of the constant that each position adds
USUAL, LONGEST = 0.3, 0.9  # lengths after the first norm: of a part of length 1, and the maximum
ATTENTION = 0.1  # factor for queries and keys: attention is nearly uniform, but can still learn
UNSEEN = 0.03  # standard deviation of the initial parts of tokens that occur in no noun


@dataclass(frozen=True)
class Parts:
    """The vectors that tokens add to the direction of their text.

    Attributes:
        components: float32 [D, K], orthonormal; parts are coordinates on them.
        tokens: the parts, float32 [V, K], in the order of the training vocabulary.
    """

    components: np.ndarray
    tokens: np.ndarray


class BagOfWords(nn.Layer):
    """The trained text model: the parts and their components.

    Args:
        parts: initial values.
        silent: rows of the tokens that have no part, including padding.
        seed: for the parts of tokens that occur in no noun.
    """

    def __init__(self, parts: Parts, silent: np.ndarray, seed: int) -> None:
        super().__init__()
        unseen = np.abs(parts.tokens).max(axis=1, keepdims=True) == 0
        drawn = np.random.default_rng(seed).normal(0, UNSEEN, parts.tokens.shape)
        self.silent = silent
        self.tokens = self._parameter(np.where(unseen, drawn, parts.tokens))
        self.components = self._parameter(parts.components)
        self.components.optimize_attr["learning_rate"] = 0.3

    def _parameter(self, value: np.ndarray) -> Tensor:
        parameter = self.create_parameter(list(value.shape))
        parameter.set_value(value.astype(np.float32))
        return parameter

    def forward(self, rows: np.ndarray) -> Tensor:
        """Rows of the vocabulary [N, L] to features [N, D]."""
        heard = paddle.to_tensor(~np.isin(rows, self.silent)).astype("float32").unsqueeze(2)  # N L 1
        sums = (F.embedding(paddle.to_tensor(rows), self.tokens) * heard).sum(axis=1)  # N K
        return paddle.matmul(sums, self.components, transpose_y=True)


def silent_rows(vocabulary: np.ndarray) -> np.ndarray:
    """The rows of the tokens of templates, and of start, end and padding tokens."""
    return rows_in(vocabulary, np.unique(tokenize([template.replace("{}", "") for template in TEMPLATES])))


def fit_parts(nouns: Nouns, subjects: Subjects, vocabulary: np.ndarray, count: int) -> Parts:
    """Fit the initial parts of a vocabulary's tokens, on `count` components."""
    components = _components(nouns, subjects, count)
    texts, sources, weights = _texts(nouns)
    rows = rows_in(vocabulary, tokenize([*texts, *subjects.names], truncate=True))
    rows = np.where(np.isin(rows, silent_rows(vocabulary)), len(vocabulary), rows)
    length = (rows < len(vocabulary)).sum(axis=1)[: len(texts)]
    used = (length == 1) | (weights >= 1) | ((weights >= RARE) & (length == 2))  # training learns the others
    weights = np.maximum(np.where(length == 1, ALONE, 1) * weights, LEAST_WEIGHT)
    known = {name for name, weight in zip(nouns.names, nouns.weights, strict=True) if weight >= RARE}
    drawn = np.array([DRAWN_NOUN if name in known else 1 for name in subjects.names]) * subjects.weights
    vectors = fit_sums(
        np.concatenate([rows[: len(texts)][used], rows[len(texts) :]]),
        np.concatenate(
            [_noun_targets(nouns, components)[sources][used], _drawn_targets(subjects, components)]
        ),
        np.concatenate([weights[used], np.maximum(drawn, LEAST_WEIGHT)]).astype(np.float32),
        len(vocabulary),
    )
    return Parts(components, vectors)


def _texts(nouns: Nouns) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The nouns and plurals of the more common ones; the index of each text's noun; the weight of each."""
    known = set(nouns.names)
    plurals = {
        i: plural(name)
        for i, name in enumerate(nouns.names)
        if nouns.weights[i] >= 1 and plural(name) not in known
    }
    sources = np.array([*range(len(nouns.names)), *plurals])
    weights = nouns.weights[sources]
    weights[len(nouns.names) :] *= PLURAL
    return [*nouns.names, *plurals.values()], sources, weights


def _components(nouns: Nouns, subjects: Subjects, count: int) -> np.ndarray:
    """Orthonormal components [D, count]: the largest principal ones, and as the last one the smallest."""
    weights = np.where(nouns.closeness >= WHOLLY, nouns.weights, LEAST_WEIGHT * nouns.weights)
    moments = _moments(nouns.directions, weights) + DRAWN * _moments(subjects.directions, subjects.weights)
    vectors = np.linalg.eigh(moments)[1].astype(np.float32)  # the smallest first
    return np.concatenate([vectors[:, :-count:-1], vectors[:, :1]], axis=1)


def _moments(directions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (directions * (weights / weights.sum())[:, None]).T @ directions


def _noun_targets(nouns: Nouns, components: np.ndarray) -> np.ndarray:
    """The directions of nouns as coordinates on the components, [N, K].

    If a noun's closeness is below 1, the rest of its length goes to the last component, where photographs
    hardly vary.
    """
    seen, close = l2_normalize(nouns.directions @ components[:, :-1]), nouns.closeness[:, None]
    return np.concatenate([close * seen, np.sqrt(1 - close**2)], axis=1).astype(np.float32)


def _drawn_targets(subjects: Subjects, components: np.ndarray) -> np.ndarray:
    targets = subjects.directions @ components
    targets[:, -1] = 0
    return l2_normalize(targets).astype(np.float32)


@paddle.no_grad()
def fit_sums(rows: np.ndarray, targets: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Fit vectors [count, K] whose sums over rows [N, L] approximate targets [N, K]; row `count` is ignored.

    Conjugate gradients on the normal equations, preconditioned by the total weight of each token.
    """
    texts, columns = np.nonzero(rows < count)
    present, tokens = np.unique(rows[texts, columns], return_inverse=True)
    some, texts = np.unique(texts, return_inverse=True)  # texts of only template words are left out
    by_token = np.argsort(tokens, kind="stable")
    text_of, token_of = paddle.to_tensor(texts), paddle.to_tensor(tokens)
    text_by_token, token_by_token = paddle.to_tensor(texts[by_token]), paddle.to_tensor(tokens[by_token])
    weight = paddle.to_tensor(weights[some]).unsqueeze(1)

    def sums(vectors: Tensor) -> Tensor:
        return segment_sum(vectors.index_select(token_of), text_of)

    def asked(residual: Tensor) -> Tensor:
        return segment_sum((weight * residual).index_select(text_by_token), token_by_token)

    scale = RIDGE + asked(paddle.ones_like(weight))  # tokens 1
    residual = asked(paddle.to_tensor(targets[some]))
    vectors = paddle.zeros_like(residual)
    scaled = residual / scale
    direction, size = scaled, (residual * scaled).sum(axis=0)  # for each coordinate
    for _ in range(ITERATIONS):
        product = asked(sums(direction)) + RIDGE * direction
        step = size / (direction * product).sum(axis=0).clip(min=1e-20)
        vectors = vectors + step * direction
        residual = residual - step * product
        scaled = residual / scale
        before, size = size, (residual * scaled).sum(axis=0)
        direction = scaled + size / before.clip(min=1e-20) * direction
    found = np.zeros((count, targets.shape[1]), np.float32)
    found[present] = vectors.numpy()
    return found


def write_parts(clip: CLIP, parts: Parts, seed: int) -> None:
    """Set the weights of a text tower so that it computes the sum of parts; silent tokens' must be zero."""
    random = np.random.default_rng(seed)
    width = clip.text_projection.shape[0]
    basis = _basis(width, 1 + parts.tokens.shape[1], random)
    constant, basis = basis[:, 0], basis[:, 1:]  # [width], [width, K]
    keep = basis @ basis.T
    clip.token_embedding.weight.set_value(_undo_norm(parts.tokens) @ basis.T)
    positions = clip.positional_embedding
    positions.set_value(np.tile(CONSTANT * constant, (positions.shape[0], 1)))
    clip.text_projection.set_value(basis @ parts.components.T)
    for number, block in enumerate(clip.transformer.resblocks):
        block.mlp.c_proj.weight.set_value(np.zeros(block.mlp.c_proj.weight.shape, np.float32))
        block.attn.out_proj.weight.set_value(keep if number == 0 else np.zeros_like(keep))
    attention = clip.transformer.resblocks[0].attn.in_proj.weight
    queries_and_keys = attention.numpy()[:, : 2 * width]
    attention.set_value(np.concatenate([ATTENTION * queries_and_keys, keep], axis=1))


def _basis(width: int, count: int, random: np.random.Generator) -> np.ndarray:
    """Random orthonormal vectors [width, count] with mean zero, since a layer norm removes the mean."""
    columns = np.concatenate([np.ones((width, 1)), random.normal(size=(width, count))], axis=1)
    return np.linalg.qr(columns)[0][:, 1:].astype(np.float32)


def _undo_norm(parts: np.ndarray) -> np.ndarray:
    """Vectors that, after adding the constant and applying a layer norm, are `USUAL` times the parts."""
    wanted = USUAL * parts
    length = np.linalg.norm(wanted, axis=1, keepdims=True)
    wanted *= np.minimum(1, LONGEST / np.maximum(length, 1e-9))
    length = np.minimum(length, LONGEST)
    return CONSTANT * wanted / np.sqrt(1 - length**2)
