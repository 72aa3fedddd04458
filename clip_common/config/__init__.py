"""The models as data: `architectures.py`; `records.py`, what a record holds; `published.py`, the records.

Another CLIP is another `ClipConfig` and `Pretrained` here.
"""

from .architectures import (
    CN_RN50,
    CN_VIT_B16,
    CN_VIT_H14,
    CN_VIT_L14,
    CN_VIT_L14_336,
    MINI,
    RN50,
    RN50X4,
    RN50X16,
    RN50X64,
    RN101,
    VIT_B16,
    VIT_B32,
    VIT_L14,
    VIT_L14_336,
    Activation,
    BertConfig,
    ClipConfig,
    ResNetConfig,
    TextConfig,
    ViTConfig,
)
from .published import OPENAI_BASE_URL, PRETRAINED, PUBLISHED_TOP_1, pretrained
from .records import OPENAI_MEAN, OPENAI_STD, Preprocessing, Pretrained, ReferenceValues, WeightsSource

__all__ = [
    "CN_RN50",
    "CN_VIT_B16",
    "CN_VIT_H14",
    "CN_VIT_L14",
    "CN_VIT_L14_336",
    "MINI",
    "OPENAI_BASE_URL",
    "OPENAI_MEAN",
    "OPENAI_STD",
    "PRETRAINED",
    "PUBLISHED_TOP_1",
    "RN50",
    "RN50X4",
    "RN50X16",
    "RN50X64",
    "RN101",
    "VIT_B16",
    "VIT_B32",
    "VIT_L14",
    "VIT_L14_336",
    "Activation",
    "BertConfig",
    "ClipConfig",
    "Preprocessing",
    "Pretrained",
    "ReferenceValues",
    "ResNetConfig",
    "TextConfig",
    "ViTConfig",
    "WeightsSource",
    "pretrained",
]
