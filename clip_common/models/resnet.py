"""The ModifiedResNet image tower (paper section 2.4; `clip/model.py` of openai/CLIP).

It differs from a plain ResNet in three ways: a stem of three convolutions, strides preceded by an
average pool (anti-aliasing), and attention instead of average pooling at the end.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ..config import ResNetConfig
from .transformer import attend, merge_heads, split_heads


class Bottleneck(nn.Layer):
    """1x1, 3x3 and 1x1 convolutions with a residual; a stride is an average pool after the second one."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2D(in_channels, channels, 1, bias_attr=False)
        self.bn1 = nn.BatchNorm2D(channels)
        self.conv2 = nn.Conv2D(channels, channels, 3, padding=1, bias_attr=False)
        self.bn2 = nn.BatchNorm2D(channels)
        self.avgpool = nn.AvgPool2D(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2D(channels, out_channels, 1, bias_attr=False)
        self.bn3 = nn.BatchNorm2D(out_channels)
        self.downsample = None
        if stride > 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                ("-1", nn.AvgPool2D(stride) if stride > 1 else nn.Identity()),
                ("0", nn.Conv2D(in_channels, out_channels, 1, bias_attr=False)),
                ("1", nn.BatchNorm2D(out_channels)),
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, 4 * channels, H / stride, W / stride]."""
        identity = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(self.avgpool(x)))
        return F.relu(x + identity)


class AttentionPool2D(nn.Layer):
    """Attention pooling: the mean of the grid is the query, the mean and the grid are keys and values."""

    def __init__(self, grid: int, width: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = self.create_parameter([grid**2 + 1, width])
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, embed_dim]."""
        x = x.flatten(2).transpose([0, 2, 1])  # N C H W -> N C HW -> N HW C
        x = paddle.concat([x.mean(axis=1, keepdim=True), x], axis=1)  # N (1 + HW) C
        x = x + self.positional_embedding
        # Only the output for the mean is used, so only its query is computed.
        q = split_heads(self.q_proj(x[:, :1]), self.heads)  # N H 1 d
        k = split_heads(self.k_proj(x), self.heads)  # N H (1 + HW) d
        v = split_heads(self.v_proj(x), self.heads)  # N H (1 + HW) d
        pooled = merge_heads(attend(q, k, v))  # N 1 C
        return self.c_proj(pooled.squeeze(1))


class ModifiedResNet(nn.Layer):
    """Stem, four stages of bottlenecks, attention pooling."""

    def __init__(self, config: ResNetConfig, image_resolution: int, embed_dim: int) -> None:
        super().__init__()
        width = config.width
        self.conv1 = nn.Conv2D(3, width // 2, 3, stride=2, padding=1, bias_attr=False)
        self.bn1 = nn.BatchNorm2D(width // 2)
        self.conv2 = nn.Conv2D(width // 2, width // 2, 3, padding=1, bias_attr=False)
        self.bn2 = nn.BatchNorm2D(width // 2)
        self.conv3 = nn.Conv2D(width // 2, width, 3, padding=1, bias_attr=False)
        self.bn3 = nn.BatchNorm2D(width)
        self.avgpool = nn.AvgPool2D(2)
        self.layer1 = _stage(width, width, config.layers[0], stride=1)
        self.layer2 = _stage(width * 4, width * 2, config.layers[1], stride=2)
        self.layer3 = _stage(width * 8, width * 4, config.layers[2], stride=2)
        self.layer4 = _stage(width * 16, width * 8, config.layers[3], stride=2)
        self.attnpool = AttentionPool2D(image_resolution // 32, config.output_width, config.heads, embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        """Pixels [N, 3, R, R] to features [N, embed_dim]."""
        return self.attnpool(self.grid(image))

    def grid(self, image: Tensor) -> Tensor:
        """Pixels [N, 3, R, R] to the input of attention pooling, [N, 32 * width, R / 32, R / 32]."""
        x = self.stem(image)  # N width R/4 R/4
        x = self.layer1(x)  # N 4*width R/4 R/4
        x = self.layer2(x)  # N 8*width R/8 R/8
        x = self.layer3(x)  # N 16*width R/16 R/16
        return self.layer4(x)  # N 32*width R/32 R/32

    def stem(self, x: Tensor) -> Tensor:
        """Pixels [N, 3, R, R] to [N, width, R / 4, R / 4]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return self.avgpool(x)


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    out_channels = channels * Bottleneck.expansion
    rest = [Bottleneck(out_channels, channels, stride=1) for _ in range(1, blocks)]
    return nn.Sequential(Bottleneck(in_channels, channels, stride), *rest)
