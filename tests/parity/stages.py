"""The stages of both towers at which ours is compared with OpenAI's, and how they are sampled."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from clip_common.config import BertConfig, ClipConfig, ViTConfig

_SAMPLES = 2000
_GROUP = 3  # transformer blocks


@dataclass(frozen=True)
class Stage:
    """A layer, by the name it has in both models, whose output is compared."""

    name: str
    sequence_first: bool = False  # in the reference


def of(config: ClipConfig) -> list[Stage]:
    """The stages of an architecture, in order."""
    if isinstance(config.vision, ViTConfig):
        image = [Stage("visual.conv1"), Stage("visual.ln_pre")]
        image += _blocks("visual.transformer", config.vision.layers)
        image += [Stage("visual.ln_post")]
    else:
        image = [Stage("visual.avgpool")]  # the end of the stem
        image += [Stage(f"visual.layer{i}") for i in (1, 2, 3, 4)]
    if isinstance(config.text, BertConfig):
        blocks = _every_third("bert.encoder.layer", config.text.layers)
        return [*image, Stage("bert.embeddings"), *map(Stage, blocks)]
    return [*image, Stage("token_embedding"), *_blocks("transformer", config.text.layers)]


def _blocks(prefix: str, layers: int) -> list[Stage]:
    return [Stage(name, True) for name in _every_third(f"{prefix}.resblocks", layers)]


def _every_third(prefix: str, layers: int) -> list[str]:
    return [f"{prefix}.{i}" for i in range(_GROUP - 1, layers, _GROUP)]


def sample(name: str, value: np.ndarray) -> np.ndarray:
    """What is kept of a stage: features whole, of larger tensors the same places every time."""
    if value.size <= _SAMPLES * 4:
        return value
    random = np.random.RandomState(zlib.crc32(name.encode()))
    return value.reshape(-1)[random.randint(0, value.size, _SAMPLES)]
