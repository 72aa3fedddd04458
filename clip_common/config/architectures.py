"""Architectures as data: the dimensions of both encoders, and the space they share.

A new kind of encoder is a config class beside those here. Dimensions: Radford et al. 2021, "Learning
Transferable Visual Models From Natural Language Supervision", tables 19 and 20; for Chinese the
configurations in the package cn-clip 1.6.0; for clip_mini its model card in `modules/clip_mini`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

Activation = Literal["quick_gelu", "gelu"]
"""What stands in the blocks of a ViT and of the causal text transformer; it belongs to the weights."""


@dataclass(frozen=True)
class ResNetConfig:
    """A ModifiedResNet: blocks per stage, and the width of the stem's output."""

    layers: tuple[int, int, int, int]
    width: int

    @property
    def output_width(self) -> int:
        """Channels of the last stage, the width of the attention pool."""
        return self.width * 32

    @property
    def heads(self) -> int:
        """Heads of the attention pool."""
        return self.output_width // 64


@dataclass(frozen=True)
class ViTConfig:
    """A VisionTransformer: side of a patch in pixels, blocks, width, width of an attention head."""

    patch_size: int
    layers: int
    width: int
    head_width: int = 64

    @property
    def heads(self) -> int:
        """Attention heads of each block."""
        return self.width // self.head_width


@dataclass(frozen=True)
class TextConfig:
    """CLIP's text transformer with causal attention, and the sizes of its vocabulary and context."""

    width: int
    layers: int
    context_length: int = 77
    vocab_size: int = 49408
    tokenizer: ClassVar[str] = "byte_pair"

    @property
    def heads(self) -> int:
        """Attention heads of each block."""
        return self.width // 64


class Stage(NamedTuple):
    """Blocks of an EfficientNet that share a shape; the stride is the first one's."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


@dataclass(frozen=True)
class EfficientNetConfig:
    """An EfficientNet-Lite with a head: a projection plus a branch of two layers.

    Attributes:
        stem: channels after the first convolution.
        features: channels after the last one, which are pooled.
        branch: width between the two layers of the branch.
    """

    stages: tuple[Stage, ...]
    branch: int
    stem: int = 32
    features: int = 1280

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return tuple(stage.blocks for stage in self.stages)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "same" padding, as in EfficientNet: zeros before and after, one more after if odd."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True)
class BertConfig:
    """A BERT (bidirectional attention), and the sizes of its vocabulary and context.

    Attributes:
        positions: rows of the position table; the first `context_length` are used.
    """

    width: int
    layers: int
    context_length: int = 52
    vocab_size: int = 21128
    positions: int = 512
    token_types: int = 2
    tokenizer: ClassVar[str] = "chinese_wordpiece"

    @property
    def heads(self) -> int:
        """Attention heads of each block."""
        return self.width // 64


@dataclass(frozen=True)
class ClipConfig:
    """One CLIP architecture: both towers and the space they share."""

    name: str
    embed_dim: int
    image_resolution: int
    vision: ResNetConfig | ViTConfig | EfficientNetConfig
    text: TextConfig | BertConfig
    activation: Activation = "quick_gelu"


RN50 = ClipConfig("RN50", 1024, 224, ResNetConfig((3, 4, 6, 3), 64), TextConfig(512, 12))
RN101 = ClipConfig("RN101", 512, 224, ResNetConfig((3, 4, 23, 3), 64), TextConfig(512, 12))
RN50X4 = ClipConfig("RN50x4", 640, 288, ResNetConfig((4, 6, 10, 6), 80), TextConfig(640, 12))
RN50X16 = ClipConfig("RN50x16", 768, 384, ResNetConfig((6, 8, 18, 8), 96), TextConfig(768, 12))
RN50X64 = ClipConfig("RN50x64", 1024, 448, ResNetConfig((3, 15, 36, 10), 128), TextConfig(1024, 12))
VIT_B32 = ClipConfig("ViT-B/32", 512, 224, ViTConfig(32, 12, 768), TextConfig(512, 12))
VIT_B16 = ClipConfig("ViT-B/16", 512, 224, ViTConfig(16, 12, 768), TextConfig(512, 12))
VIT_L14 = ClipConfig("ViT-L/14", 768, 224, ViTConfig(14, 24, 1024), TextConfig(768, 12))
VIT_L14_336 = ClipConfig("ViT-L/14@336px", 768, 336, ViTConfig(14, 24, 1024), TextConfig(768, 12))
EFFICIENTNET_LITE1 = EfficientNetConfig(
    stages=(
        Stage(1, 3, 1, 1, 16),
        Stage(3, 3, 2, 6, 24),
        Stage(3, 5, 2, 6, 40),
        Stage(4, 3, 2, 6, 80),
        Stage(4, 5, 1, 6, 112),
        Stage(5, 5, 2, 6, 192),
        Stage(1, 3, 1, 6, 320),
    ),
    branch=512,
)
MINI = ClipConfig("mini", 512, 240, EFFICIENTNET_LITE1, TextConfig(256, 2))
# RBT3, RoBERTa-wwm-ext-base and RoBERTa-wwm-ext-large are BERTs for Chinese.
CN_RN50 = ClipConfig("CN-RN50", 1024, 224, ResNetConfig((3, 4, 6, 3), 64), BertConfig(768, 3))
CN_VIT_B16 = ClipConfig("CN-ViT-B/16", 512, 224, ViTConfig(16, 12, 768), BertConfig(768, 12))
CN_VIT_L14 = ClipConfig("CN-ViT-L/14", 768, 224, ViTConfig(14, 24, 1024), BertConfig(768, 12))
CN_VIT_L14_336 = ClipConfig("CN-ViT-L/14@336px", 768, 336, ViTConfig(14, 24, 1024), BertConfig(768, 12))
CN_VIT_H14 = ClipConfig("CN-ViT-H/14", 1024, 224, ViTConfig(14, 32, 1280, 80), BertConfig(1024, 24))
