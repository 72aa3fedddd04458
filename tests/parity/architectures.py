"""The architectures that are compared with the reference: some whole, the larger ones at their full width
with fewer layers, each of which is like the next."""

from __future__ import annotations

from dataclasses import replace

from clip_common import config as known
from clip_common.config import ClipConfig, ResNetConfig, ViTConfig


def shallow(config: ClipConfig, vision_layers: int, text_layers: int) -> ClipConfig:
    """An architecture with fewer layers; a ResNet with two blocks in the second stage, one in the others."""
    vision: ResNetConfig | ViTConfig
    if isinstance(config.vision, ViTConfig):
        vision = replace(config.vision, layers=vision_layers)
    else:
        assert isinstance(config.vision, ResNetConfig)
        vision = replace(config.vision, layers=(1, 2, 1, 1))
    text = replace(config.text, layers=text_layers)
    return replace(config, name=f"{config.name}, shallow", vision=vision, text=text)


WHOLE = (known.RN50, known.RN101, known.VIT_B32)
VIT_B32_GELU = replace(shallow(known.VIT_B32, 3, 3), name="ViT-B/32, GELU, shallow", activation="gelu")
SHALLOW = (
    shallow(known.RN50X4, 0, 1),
    shallow(known.RN50X16, 0, 1),
    shallow(known.RN50X64, 0, 1),
    shallow(known.VIT_B16, 3, 3),
    shallow(known.VIT_L14, 3, 3),
    shallow(known.VIT_L14_336, 2, 1),
    VIT_B32_GELU,
    shallow(known.CN_RN50, 0, 3),
    shallow(known.CN_VIT_B16, 3, 3),
    shallow(known.CN_VIT_H14, 2, 2),
)
