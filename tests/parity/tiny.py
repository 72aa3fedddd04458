"""CLIPs of a few kilobytes, for tests of files and formats.

Every width is 16, so that most matrices are square: a wrong orientation shows in values alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clip_common.config import BertConfig, ClipConfig, ResNetConfig, TextConfig, ViTConfig


@dataclass(frozen=True)
class _NarrowViT(ViTConfig):
    @property
    def heads(self) -> int:
        return 2  # OpenAI's rule, one for each 64 of width, leaves none here


@dataclass(frozen=True)
class _NarrowText(TextConfig):
    @property
    def heads(self) -> int:
        return 2


@dataclass(frozen=True)
class _NarrowBert(BertConfig):
    @property
    def heads(self) -> int:
        return 2


_TEXT = _NarrowText(width=16, layers=2, context_length=8, vocab_size=64)
TINY_VIT = ClipConfig("tiny ViT", 16, 16, _NarrowViT(patch_size=8, layers=2, width=16), _TEXT)
TINY_RN = ClipConfig("tiny RN", 16, 64, ResNetConfig((1, 2, 1, 1), width=2), _TEXT)
_BERT = _NarrowBert(width=16, layers=2, context_length=8, vocab_size=64, positions=12)
TINY_CHINESE_VIT = ClipConfig("tiny Chinese ViT", 16, 16, _NarrowViT(patch_size=8, layers=2, width=16), _BERT)
TINY_CHINESE_RN = ClipConfig("tiny Chinese RN", 16, 64, ResNetConfig((1, 2, 1, 1), width=2), _BERT)

# Texts of several lengths; the last id is the end token, where the feature is read.
TOKENS = np.array([[1, 5, 63, 0, 0, 0, 0, 0], [1, 9, 9, 7, 40, 2, 8, 63], [1, 63, 0, 0, 0, 0, 0, 0]])
