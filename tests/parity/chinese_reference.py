"""cn-clip's own code, the package of Chinese-CLIP's authors. Used only where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from clip_common.config import BertConfig, ClipConfig, ResNetConfig, ViTConfig
from tests.parity.reference import load_file, normalized


def available(*others: str) -> bool:
    """Whether cn-clip and some other packages are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("cn_clip", *others))


def _folder() -> Path:
    package = importlib.util.find_spec("cn_clip")
    assert package is not None and package.submodule_search_locations, "pip install --no-deps cn-clip six"
    return Path(package.submodule_search_locations[0]) / "clip"


def reference_tokenizer() -> Any:
    """cn-clip's tokenizer; `encode` of a text as ours, without the tokens around it."""
    tokenizer = load_file(_folder() / "bert_tokenizer.py", "cn_clip_tokenizer").FullTokenizer()
    tokenizer.encode = lambda text: tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))
    return tokenizer


def build_reference(config: ClipConfig, state: dict[str, np.ndarray]) -> Any:
    """cn-clip's model over a state dict, as its `load_from_name` makes it on a CPU: most values rounded to
    fp16, float32 arithmetic."""
    import torch

    vision, text = config.vision, config.text
    assert isinstance(text, BertConfig) and isinstance(vision, ResNetConfig | ViTConfig)
    vit = vision if isinstance(vision, ViTConfig) else None
    code = model_code()
    model = code.CLIP(
        embed_dim=config.embed_dim,
        image_resolution=config.image_resolution,
        vision_layers=vision.layers,
        vision_width=vision.width,
        vision_patch_size=vit.patch_size if vit else None,
        vision_head_width=vit.head_width if vit else 64,
        vocab_size=text.vocab_size,
        text_attention_probs_dropout_prob=0.1,
        text_hidden_act="gelu",
        text_hidden_dropout_prob=0.1,
        text_hidden_size=text.width,
        text_initializer_range=0.02,
        text_intermediate_size=4 * text.width,
        text_max_position_embeddings=text.positions,
        text_num_attention_heads=text.heads,
        text_num_hidden_layers=text.layers,
        text_type_vocab_size=text.token_types,
    )
    code.convert_weights(model)
    found = model.load_state_dict(
        {name: torch.from_numpy(value) for name, value in state.items()}, strict=False
    )
    assert not found.unexpected_keys, found
    assert all("pooler" in name or "num_batches" in name for name in found.missing_keys), found
    return model.float().eval()


def reference_pixels(image: Image.Image, size: int) -> np.ndarray:
    """What cn-clip's `image_transform` gives for a picture, float32 [3, size, size], without torchvision."""
    return normalized(image.resize((size, size), Image.Resampling.BICUBIC).convert("RGB"))


def model_code() -> ModuleType:
    """`cn_clip.clip.model`, whose package would import torchvision."""
    package = ModuleType("cn_clip.clip")
    package.__path__ = [str(_folder())]
    package._tokenizer = reference_tokenizer()  # type: ignore[attr-defined]
    sys.modules["cn_clip.clip"] = package
    return importlib.import_module("cn_clip.clip.model")
