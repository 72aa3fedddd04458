"""The VisionTransformer image tower (paper section 2.4; `clip/model.py` of openai/CLIP)."""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from ..config import Activation, ViTConfig
from .transformer import Transformer


class VisionTransformer(nn.Layer):
    """Patches and a class token through a pre-norm transformer; the class token is projected."""

    def __init__(
        self, config: ViTConfig, image_resolution: int, embed_dim: int, activation: Activation
    ) -> None:
        super().__init__()
        width, grid = config.width, image_resolution // config.patch_size
        self.conv1 = nn.Conv2D(3, width, config.patch_size, stride=config.patch_size, bias_attr=False)
        self.class_embedding = self.create_parameter([width])
        self.positional_embedding = self.create_parameter([grid**2 + 1, width])
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.layers, config.heads, activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = self.create_parameter([width, embed_dim])

    def forward(self, image: Tensor) -> Tensor:
        """Pixels [N, 3, R, R] to features [N, embed_dim]."""
        x = self.conv1(image)  # N D grid grid
        x = x.flatten(2).transpose([0, 2, 1])  # N D grid grid -> N D grid**2 -> N grid**2 D
        class_token = paddle.zeros_like(x[:, :1]) + self.class_embedding  # N 1 D
        x = paddle.concat([class_token, x], axis=1)  # N (1 + grid**2) D
        x = self.ln_pre(x + self.positional_embedding)
        x = self.transformer(x)
        x = self.ln_post(x[:, 0])  # N L D -> N D
        return paddle.matmul(x, self.proj)
