"""All of PaddleHub: the modules' base class, `hub run`, and archives for `hub install`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .module import ClipModule

__all__ = ["ClipModule"]


def __getattr__(name: str) -> Any:
    if name != "ClipModule":  # importing PaddleHub takes seconds, and packing does without
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .module import ClipModule

    return ClipModule
