"""OpenAI's CLIP on PaddlePaddle. Importing this imports no framework until a name that needs one is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .errors import ClipError
    from .models.clip import CLIP
    from .paddle_api import build_rn50_model, build_rn101_model, build_vit_model, load, tokenize, transform
    from .predictor import Predictor
    from .zero_shot.thresholds import Thresholds

__all__ = [
    "CLIP",
    "ClipError",
    "Predictor",
    "Thresholds",
    "__version__",
    "build_rn50_model",
    "build_rn101_model",
    "build_vit_model",
    "load",
    "tokenize",
    "transform",
]

_HOMES = {
    "CLIP": "models.clip",
    "ClipError": "errors",
    "Predictor": "predictor",
    "Thresholds": "zero_shot.thresholds",
    "build_rn50_model": "paddle_api",
    "build_rn101_model": "paddle_api",
    "build_vit_model": "paddle_api",
    "load": "paddle_api",
    "tokenize": "paddle_api",
    "transform": "paddle_api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
