"""OpenAI's CLIP on PaddlePaddle. Names are imported lazily: `import clip_common` alone loads no framework."""

import importlib

from .version import __version__

# `python -m clip_common` runs this while the current folder is still first on sys.path, where a file may
# shadow a standard module. So nothing is imported here that Python has not imported already, not even
# `typing` or `__future__`.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from .errors import ClipError
    from .models.clip import CLIP
    from .paddle_api import build_rn50_model, build_rn101_model, build_vit_model, load, tokenize, transform
    from .predictor import Predictor
    from .zero_shot.explain import explain
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
    "explain",
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
    "explain": "zero_shot.explain",
    "load": "paddle_api",
    "tokenize": "paddle_api",
    "transform": "paddle_api",
}


def __getattr__(name: str) -> "Any":
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    importlib.import_module(".system.home", __name__).provide_home()
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
