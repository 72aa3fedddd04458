"""PaddleHub integration: the base class of the modules, `hub run`, and archives for `hub install`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .module import ClipModule

__all__ = ["ClipModule"]


def __getattr__(name: str) -> Any:
    if name != "ClipModule":  # lazy: importing PaddleHub takes seconds, and packing does not need it
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .module import ClipModule

    return ClipModule
