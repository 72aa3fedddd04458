"""Packages of the extras, which need not be installed."""

from __future__ import annotations

import importlib.util

from ..errors import RequestError


def require_package(package: str, extra: str) -> None:
    """Check that an optional package is installed.

    Raises:
        RequestError: naming the extra that brings it.
    """
    if importlib.util.find_spec(package) is None:
        raise RequestError(f"this needs {package}: pip install '.[{extra}]'")
