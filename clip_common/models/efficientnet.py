"""The EfficientNet-Lite image tower (Tan and Le 2019; tensorflow/tpu, models/official/efficientnet/lite).

It is EfficientNet with ReLU6 and without squeeze-and-excitation. Its pooled features go into a head of this
project: a projection into the space shared with texts, plus a small branch for what the projection cannot do.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ..config import EfficientNetConfig, same_padding

_EPSILON = 1e-3  # of BatchNorm, as in TensorFlow's code


class InvertedBottleneck(nn.Layer):
    """1x1 convolution to more channels, depthwise convolution, 1x1 back; a residual where shapes agree."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, stride: int, expansion: int, size: int
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.is_residual = stride == 1 and in_channels == channels
        self.has_expansion = expansion > 1
        if self.has_expansion:
            self.conv_expand = nn.Conv2D(in_channels, inner, 1, bias_attr=False)
            self.bn_expand = _norm(inner)
        self.conv_depthwise = nn.Conv2D(
            inner,
            inner,
            kernel,
            stride,
            _padding(size, kernel, stride),
            groups=inner,
            bias_attr=False,
        )
        self.bn_depthwise = _norm(inner)
        self.conv_project = nn.Conv2D(inner, channels, 1, bias_attr=False)
        self.bn_project = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        inner = x
        if self.has_expansion:
            inner = F.relu6(self.bn_expand(self.conv_expand(inner)))
        inner = F.relu6(self.bn_depthwise(self.conv_depthwise(inner)))
        inner = self.bn_project(self.conv_project(inner))
        return inner + x if self.is_residual else inner


class Head(nn.Layer):
    """The sum of a projection and a branch of two layers."""

    def __init__(self, features: int, width: int, embed_dim: int) -> None:
        super().__init__()
        self.projection = self.create_parameter([features, embed_dim])
        self.c_fc = nn.Linear(features, width)
        self.c_proj = nn.Linear(width, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features [N, features] to features [N, embed_dim]."""
        return paddle.matmul(x, self.projection) + self.c_proj(F.relu(self.c_fc(x)))


class EfficientNet(nn.Layer):
    """Stem, blocks, 1x1 convolution, mean over places, and the head."""

    def __init__(self, config: EfficientNetConfig, image_resolution: int, embed_dim: int) -> None:
        super().__init__()
        size = image_resolution
        self.conv_stem = nn.Conv2D(3, config.stem, 3, 2, _padding(size, 3, 2), bias_attr=False)
        self.bn_stem = _norm(config.stem)
        channels, size = config.stem, -(-size // 2)
        blocks = []
        for stage in config.stages:
            for place in range(stage.blocks):
                stride = stage.stride if place == 0 else 1
                blocks.append(
                    InvertedBottleneck(channels, stage.channels, stage.kernel, stride, stage.expansion, size)
                )
                channels, size = stage.channels, -(-size // stride)
        self.blocks = nn.LayerList(blocks)
        self.conv_head = nn.Conv2D(channels, config.features, 1, bias_attr=False)
        self.bn_head = _norm(config.features)
        self.head = Head(config.features, config.branch, embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        """Pixels [N, 3, R, R] to features [N, embed_dim]."""
        return self.head(self.pool(image))

    def pool(self, image: Tensor) -> Tensor:
        """Pixels [N, 3, R, R] to what the head reads, [N, config.features]."""
        x = F.relu6(self.bn_stem(self.conv_stem(image)))  # N stem R/2 R/2
        for block in self.blocks:
            x = block(x)
        x = F.relu6(self.bn_head(self.conv_head(x)))  # N features R/32 R/32
        return x.mean(axis=[2, 3])


def _padding(size: int, kernel: int, stride: int) -> list[int]:
    """Above, below, left, right."""
    return [*same_padding(size, kernel, stride)] * 2


def _norm(channels: int) -> nn.BatchNorm2D:
    return nn.BatchNorm2D(channels, epsilon=_EPSILON)
