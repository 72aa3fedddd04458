"""Checkpoints like OpenAI's, from seeds: the same on every machine, since `RandomState` is frozen.

Names, shapes and types are those of the official files, listed here by hand and not taken from our model,
so that a mistake there cannot hide. No term is zero or one: every bias, norm and running statistic
matters, and the residual branches are alive (the reference itself starts `bn3.weight` at zero).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from clip_common.config import (
    BertConfig,
    ClipConfig,
    EfficientNetConfig,
    ResNetConfig,
    TextConfig,
    ViTConfig,
)
from clip_common.text.tokenizer import tokenize, tokenizer_of

LABELS = ["a diagram", "a dog", "a cat"]
TEXTS = [*LABELS, "a photo of a very small, rather surprised elephant!"]
CHINESE_LABELS = ["图表", "一只狗", "皮卡丘"]
CHINESE_TEXTS = [*CHINESE_LABELS, "一张照片，上面是一头很小的、有点惊讶的大象，站在ViT-B/16旁边！"]


def state(config: ClipConfig) -> dict[str, np.ndarray]:
    """A whole state dict in OpenAI's layout, each tensor in the type the official files have.

    Chinese-CLIP's are float32, and its code rounds most of them to float16 as it loads them: here they are
    rounded already.
    """
    made = {name: _values(name, shape, kind) for name, shape, kind in _tensors(config)}
    made["logit_scale"] = np.array(math.log(100), "float32")
    if isinstance(config.text, BertConfig):
        made = {name: value.astype("float32") for name, value in made.items()}
    return made


def texts(config: ClipConfig) -> list[str]:
    """Texts of several lengths in the language of an architecture's tokenizer."""
    return CHINESE_TEXTS if isinstance(config.text, BertConfig) else TEXTS


def labels(config: ClipConfig) -> list[str]:
    """Those of `texts` that an image is compared with."""
    return texts(config)[: len(LABELS)]


def tokens(config: ClipConfig) -> np.ndarray:
    """The ids of `texts`."""
    text = config.text
    return tokenize(texts(config), text.context_length, tokenizer=tokenizer_of(text))


def pixels(config: ClipConfig) -> np.ndarray:
    """Normalised images, float32 [4, 3, R, R]: coarse shapes with noise on them."""
    random = np.random.RandomState(7)
    size = config.image_resolution
    block = math.ceil(size / 7)
    coarse = random.standard_normal((4, 3, 7, 7)).repeat(block, 2).repeat(block, 3)[:, :, :size, :size]
    return (coarse + 0.5 * random.standard_normal((4, 3, size, size))).astype("float32")


def image() -> Image.Image:
    """A photo-like image, RGB 500 x 375: soft colours, a few hard edges, some grain."""
    random = np.random.RandomState(11)
    soft = Image.fromarray(random.randint(0, 256, (6, 8, 3)).astype("uint8")).resize(
        (500, 375), Image.Resampling.BILINEAR
    )
    image = np.asarray(soft).astype("int16") + random.randint(-12, 13, (375, 500, 3))
    image[60:200, 90:260] = (200, 40, 30)
    image[240:330, 300:460] = (20, 60, 180)
    return Image.fromarray(image.clip(0, 255).astype("uint8"))


def _values(name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
    random = np.random.RandomState(zlib.crc32(name.encode()))
    noise = random.standard_normal(shape)
    if kind == "norm_weight":
        is_branch = name.endswith(("bn3.weight", "bn_project.weight")) and name.count(".") > 2
        values = (0.3 if is_branch else 1.0) * (1 + 0.1 * noise)
    elif kind == "variance":
        values = random.uniform(0.5, 1.5, shape)
    elif kind == "bias":
        values = 0.1 * noise
    elif kind == "embedding":
        values = 0.3 * noise
    else:  # a product with this keeps the scale of what it multiplies
        values = noise * float(kind)
    half = kind not in ("norm_weight", "variance", "embedding") and not _is_norm(name)
    half = half or name.startswith("bert.")
    return values.astype("float16" if half else "float32")


def _is_norm(name: str) -> bool:
    return any(part in name for part in (".ln_", "ln_final", ".bn", "downsample.1"))


Tensor = tuple[str, tuple[int, ...], str]


def _tensors(config: ClipConfig) -> Iterator[Tensor]:
    text = config.text
    if isinstance(config.vision, ViTConfig):
        yield from _vit(config.vision, config.image_resolution, config.embed_dim)
    elif isinstance(config.vision, EfficientNetConfig):
        yield from _efficientnet(config.vision, config.embed_dim)
    else:
        yield from _resnet(config.vision, config.image_resolution, config.embed_dim)
    yield from _bert(text) if isinstance(text, BertConfig) else _causal_text(text)
    yield "text_projection", (text.width, config.embed_dim), str(text.width**-0.5)


def _causal_text(text: TextConfig) -> Iterator[Tensor]:
    yield "token_embedding.weight", (text.vocab_size, text.width), "embedding"
    yield "positional_embedding", (text.context_length, text.width), "embedding"
    yield from _transformer("transformer", text.width, text.layers)
    yield from _norm("ln_final", text.width)


def _bert(text: BertConfig) -> Iterator[Tensor]:
    width, embeddings = text.width, "bert.embeddings"
    yield f"{embeddings}.word_embeddings.weight", (text.vocab_size, width), "embedding"
    yield f"{embeddings}.position_embeddings.weight", (text.positions, width), "embedding"
    yield f"{embeddings}.token_type_embeddings.weight", (text.token_types, width), "embedding"
    yield from _norm(f"{embeddings}.LayerNorm", width)
    for i in range(text.layers):
        block = f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            yield from _linear(f"{block}.attention.self.{name}", width, width)
        yield from _linear(f"{block}.attention.output.dense", width, width)
        yield from _norm(f"{block}.attention.output.LayerNorm", width)
        yield from _linear(f"{block}.intermediate.dense", 4 * width, width)
        yield from _linear(f"{block}.output.dense", width, 4 * width)
        yield from _norm(f"{block}.output.LayerNorm", width)


def _norm(name: str, width: int) -> Iterator[Tensor]:
    yield f"{name}.weight", (width,), "norm_weight"
    yield f"{name}.bias", (width,), "bias"


def _linear(name: str, outputs: int, inputs: int) -> Iterator[Tensor]:
    # The grid that the attention pool reads is not normalised: at full scale its softmax would pick one
    # place, which no trained model does, and no mistake in the others could show.
    scale = 0.3 if name.endswith(("attnpool.q_proj", "attnpool.k_proj")) else 1.0
    yield f"{name}.weight", (outputs, inputs), str(scale * inputs**-0.5)
    yield f"{name}.bias", (outputs,), "bias"


def _transformer(prefix: str, width: int, layers: int) -> Iterator[Tensor]:
    for i in range(layers):
        block = f"{prefix}.resblocks.{i}"
        yield f"{block}.attn.in_proj_weight", (3 * width, width), str(width**-0.5)
        yield f"{block}.attn.in_proj_bias", (3 * width,), "bias"
        yield from _linear(f"{block}.attn.out_proj", width, width)
        yield from _norm(f"{block}.ln_1", width)
        yield from _linear(f"{block}.mlp.c_fc", 4 * width, width)
        yield from _linear(f"{block}.mlp.c_proj", width, 4 * width)
        yield from _norm(f"{block}.ln_2", width)


def _vit(vision: ViTConfig, resolution: int, embed_dim: int) -> Iterator[Tensor]:
    width, patch = vision.width, vision.patch_size
    yield "visual.class_embedding", (width,), "embedding"
    yield "visual.positional_embedding", ((resolution // patch) ** 2 + 1, width), "embedding"
    yield "visual.conv1.weight", (width, 3, patch, patch), str((3 * patch**2) ** -0.5)
    yield from _norm("visual.ln_pre", width)
    yield from _transformer("visual.transformer", width, vision.layers)
    yield from _norm("visual.ln_post", width)
    yield "visual.proj", (width, embed_dim), str(width**-0.5)


def _conv_bn(prefix: str, number: int | str, outputs: int, inputs: int, kernel: int) -> Iterator[Tensor]:
    conv, norm = f"conv{number}", f"bn{number}"
    if number == "downsample":
        conv, norm = "downsample.0", "downsample.1"
    yield f"{prefix}.{conv}.weight", (outputs, inputs, kernel, kernel), str((2 / inputs / kernel**2) ** 0.5)
    yield from _norm(f"{prefix}.{norm}", outputs)
    yield f"{prefix}.{norm}.running_mean", (outputs,), "bias"
    yield f"{prefix}.{norm}.running_var", (outputs,), "variance"


def _efficientnet(vision: EfficientNetConfig, embed_dim: int) -> Iterator[Tensor]:
    yield from _named_conv_bn("visual", "stem", vision.stem, 3, 3)
    inputs, number = vision.stem, 0
    for stage in vision.stages:
        for _ in range(stage.blocks):
            block, inner = f"visual.blocks.{number}", inputs * stage.expansion
            if stage.expansion > 1:
                yield from _named_conv_bn(block, "expand", inner, inputs, 1)
            yield from _named_conv_bn(block, "depthwise", inner, 1, stage.kernel)
            yield from _named_conv_bn(block, "project", stage.channels, inner, 1)
            inputs, number = stage.channels, number + 1
    yield from _named_conv_bn("visual", "head", vision.features, inputs, 1)
    yield "visual.head.projection", (vision.features, embed_dim), str(vision.features**-0.5)
    yield from _linear("visual.head.c_fc", vision.branch, vision.features)
    yield from _linear("visual.head.c_proj", embed_dim, vision.branch)


def _named_conv_bn(prefix: str, name: str, outputs: int, inputs: int, kernel: int) -> Iterator[Tensor]:
    shape = (outputs, inputs, kernel, kernel)
    yield f"{prefix}.conv_{name}.weight", shape, str((2 / inputs / kernel**2) ** 0.5)
    yield from _norm(f"{prefix}.bn_{name}", outputs)
    yield f"{prefix}.bn_{name}.running_mean", (outputs,), "bias"
    yield f"{prefix}.bn_{name}.running_var", (outputs,), "variance"


def _resnet(vision: ResNetConfig, resolution: int, embed_dim: int) -> Iterator[Tensor]:
    width = vision.width
    yield from _conv_bn("visual", 1, width // 2, 3, 3)
    yield from _conv_bn("visual", 2, width // 2, width // 2, 3)
    yield from _conv_bn("visual", 3, width, width // 2, 3)
    inputs = width
    for stage, blocks in enumerate(vision.layers):
        planes = width * 2**stage
        for i in range(blocks):
            block = f"visual.layer{stage + 1}.{i}"
            yield from _conv_bn(block, 1, planes, inputs, 1)
            yield from _conv_bn(block, 2, planes, planes, 3)
            yield from _conv_bn(block, 3, planes * 4, planes, 1)
            if i == 0:
                yield from _conv_bn(block, "downsample", planes * 4, inputs, 1)
            inputs = planes * 4
    yield "visual.attnpool.positional_embedding", ((resolution // 32) ** 2 + 1, inputs), "embedding"
    for name in ("q_proj", "k_proj", "v_proj"):
        yield from _linear(f"visual.attnpool.{name}", inputs, inputs)
    yield from _linear("visual.attnpool.c_proj", embed_dim, inputs)
