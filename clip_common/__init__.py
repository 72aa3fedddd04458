"""OpenAI's CLIP on PaddlePaddle. Importing this imports no framework until a name that needs one is used."""

from __future__ import annotations

import importlib
from typing import Any

from .version import __version__

_HOMES = {
    "load": "paddle_api",
    "build_rn50_model": "paddle_api",
    "build_rn101_model": "paddle_api",
    "build_vit_model": "paddle_api",
    "tokenize": "paddle_api",
    "transform": "paddle_api",
    "CLIP": "models.clip",
    "Predictor": "predictor",
    "ClipError": "errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
