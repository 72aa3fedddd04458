"""Optional dependencies, the packages of the extras."""

from __future__ import annotations

import importlib.util

from ..errors import RequestError


def require_package(package: str, extra: str) -> None:
    """Check that an optional package is installed.

    Raises:
        RequestError: it is not; the message names the extra to install.
    """
    if importlib.util.find_spec(package) is None:
        raise RequestError(f"this needs {package}: pip install '.[{extra}]'")
