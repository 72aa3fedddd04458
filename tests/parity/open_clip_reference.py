"""open_clip's own model code, for weights that were trained with GELU. Used only where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np

from clip_common.config import ClipConfig, TextConfig, ViTConfig


def available() -> bool:
    """Whether torch and open_clip are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "open_clip"))


def build_reference(config: ClipConfig, state: dict[str, np.ndarray]) -> Any:
    """open_clip's model of a ViT over a state dict, in float32."""
    import torch

    vision, text = config.vision, config.text
    assert isinstance(vision, ViTConfig) and isinstance(text, TextConfig)
    code = _model_code()
    model = code.CLIP(
        config.embed_dim,
        code.CLIPVisionCfg(
            layers=vision.layers,
            width=vision.width,
            head_width=vision.head_width,
            patch_size=vision.patch_size,
            image_size=config.image_resolution,
        ),
        code.CLIPTextCfg(
            context_length=text.context_length,
            vocab_size=text.vocab_size,
            width=text.width,
            heads=text.heads,
            layers=text.layers,
        ),
        quick_gelu=config.activation == "quick_gelu",
    )
    model.load_state_dict({name: torch.from_numpy(value).float() for name, value in state.items()})
    return model.eval()


def _model_code() -> ModuleType:
    """`open_clip.model`, without what its package imports of torchvision, which nothing here needs."""
    found = importlib.util.find_spec("open_clip")
    assert found is not None, "pip install --no-deps open_clip_torch"
    package = ModuleType("open_clip")
    package.__path__ = list(found.submodule_search_locations or [])
    sys.modules["open_clip"] = package
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.misc"):
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules["torchvision.ops.misc"].FrozenBatchNorm2d = object  # type: ignore[attr-defined]
    return importlib.import_module("open_clip.model")
