"""The model against the formulas of the paper, spelled out in numpy: no golden file, none of our code."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import paddle
import pytest

from clip_common.config import Activation, ClipConfig, ResNetConfig
from clip_common.models.clip import CLIP
from clip_common.models.resnet import AttentionPool2D
from clip_common.models.transformer import activation_layer
from tests.parity import seeded
from tests.parity.tiny import TINY_VIT, TOKENS

State = dict[str, np.ndarray]
HEADS = 2  # of the tiny models, in both towers


# --- the formulas -------------------------------------------------------------------------------------


def quick_gelu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-1.702 * x))


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def layer_norm(x: np.ndarray, state: State, name: str) -> np.ndarray:
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: np.ndarray, state: State, name: str, separator: str = ".") -> np.ndarray:
    return x @ state[f"{name}{separator}weight"].T + state[f"{name}{separator}bias"]


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | float = 0.0) -> np.ndarray:
    """Head by head over [L, D]: softmax(q k' / sqrt(d)) v."""
    heads = []
    for one_q, one_k, one_v in zip(*(np.split(part, HEADS, axis=-1) for part in (q, k, v)), strict=True):
        scores = one_q @ one_k.T / math.sqrt(one_q.shape[-1])
        heads.append(softmax(scores + mask) @ one_v)
    return np.concatenate(heads, axis=-1)


def transformer(
    x: np.ndarray, state: State, name: str, config: ClipConfig, mask: np.ndarray | float = 0.0
) -> np.ndarray:
    for number in range(2):
        block = f"{name}.resblocks.{number}"
        qkv = linear(layer_norm(x, state, f"{block}.ln_1"), state, f"{block}.attn.in_proj", "_")
        q, k, v = np.split(qkv, 3, axis=-1)
        x = x + linear(attend(q, k, v, mask), state, f"{block}.attn.out_proj")
        hidden = linear(layer_norm(x, state, f"{block}.ln_2"), state, f"{block}.mlp.c_fc")
        x = x + linear(ACTIVATIONS[config.activation](hidden), state, f"{block}.mlp.c_proj")
    return x


def text_feature(ids: np.ndarray, state: State, config: ClipConfig) -> np.ndarray:
    """One text [L]: each token sees itself and those before it; the feature is read at the end token."""
    x = state["token_embedding.weight"][ids] + state["positional_embedding"][: len(ids)]
    later = np.where(np.arange(len(ids)) > np.arange(len(ids))[:, None], -np.inf, 0.0)
    x = transformer(x, state, "transformer", config, later)
    end = list(ids).index(config.text.vocab_size - 1)
    return layer_norm(x[end], state, "ln_final") @ state["text_projection"]


def image_feature(pixels: np.ndarray, state: State, config: ClipConfig) -> np.ndarray:
    """One image [3, 16, 16] in patches of 8: row by row, after the class token, which is projected."""
    patches = [pixels[:, y : y + 8, x : x + 8] for y in (0, 8) for x in (0, 8)]
    kernels = state["visual.conv1.weight"]
    tokens = [state["visual.class_embedding"], *((kernels * patch).sum(axis=(1, 2, 3)) for patch in patches)]
    x = layer_norm(np.stack(tokens) + state["visual.positional_embedding"], state, "visual.ln_pre")
    x = transformer(x, state, "visual.transformer", config)
    return layer_norm(x[0], state, "visual.ln_post") @ state["visual.proj"]


# --- the model ----------------------------------------------------------------------------------------


def model_and_state(activation: Activation) -> tuple[CLIP, State]:
    config = replace(TINY_VIT, activation=activation)
    state = {name: value.astype(np.float32) for name, value in seeded.state(config).items()}
    state["logit_scale"] = np.array(math.log(7), np.float32)
    model = CLIP(config)
    model.load_openai(state)
    model.eval()
    return model, {name: value.astype(np.float64) for name, value in state.items()}


def require_near(found: paddle.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_is_its_formula(activation: Activation) -> None:
    x = np.linspace(-4, 4, 33, dtype=np.float32)
    require_near(activation_layer(activation)(paddle.to_tensor(x)), ACTIVATIONS[activation](x.astype(float)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@paddle.no_grad()
def test_a_text_is_encoded_as_the_paper_says(activation: Activation) -> None:
    model, state = model_and_state(activation)
    expected = np.stack([text_feature(ids, state, model.config) for ids in TOKENS])
    require_near(model.encode_text(paddle.to_tensor(TOKENS)), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@paddle.no_grad()
def test_an_image_is_encoded_as_the_paper_says(activation: Activation) -> None:
    model, state = model_and_state(activation)
    pixels = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    expected = np.stack([image_feature(image, state, model.config) for image in pixels.astype(float)])
    require_near(model.encode_image(paddle.to_tensor(pixels)), expected)


@paddle.no_grad()
def test_the_logits_are_cosines_times_the_scale_and_not_its_logarithm() -> None:
    model, _ = model_and_state("quick_gelu")
    pixels = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32))
    tokens = paddle.to_tensor(TOKENS)
    images, texts = model.encode_image(pixels).numpy(), model.encode_text(tokens).numpy()
    cosines = images @ texts.T / np.linalg.norm(images, axis=1)[:, None] / np.linalg.norm(texts, axis=1)
    per_image, per_text = model(pixels, tokens)
    np.testing.assert_allclose(per_image.numpy(), 7 * cosines, rtol=1e-4)
    np.testing.assert_array_equal(per_text.numpy(), per_image.numpy().T)


@paddle.no_grad()
def test_the_attention_pool_is_what_the_mean_of_the_grid_sees() -> None:
    config, rng = ResNetConfig((1, 1, 1, 1), width=4), np.random.default_rng(0)
    pool = AttentionPool2D(2, config.output_width, config.heads, 16)
    state = {
        name: rng.normal(size=value.shape).astype(np.float32) / 8 for name, value in pool.state_dict().items()
    }
    pool.set_state_dict(state)
    grid = rng.normal(size=(2, config.output_width, 2, 2)).astype(np.float32)
    for found, one in zip(pool(paddle.to_tensor(grid)), grid, strict=True):
        places = one.reshape(config.output_width, 4).T  # C H W -> HW C
        x = np.concatenate([places.mean(axis=0)[None], places]) + state["positional_embedding"]
        q, k, v = (x @ state[f"{name}_proj.weight"] + state[f"{name}_proj.bias"] for name in "qkv")
        seen = attend(q[:1], k, v)[0]
        require_near(found, seen @ state["c_proj.weight"] + state["c_proj.bias"])
