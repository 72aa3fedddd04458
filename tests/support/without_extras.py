"""A pytest plugin, `-p tests.support.without_extras`, that hides the packages of all extras but [dev]."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# Top-level import names of packages that `pip install .[dev]` does not install.
HIDDEN = {
    "ray",
    "httptools",
    "uvloop",
    "watchfiles",
    "pymilvus",
    "milvus_lite",
    "openvino",
    "numba",
    "llvmlite",
    "pillow_heif",
    "selenium",
    "resvg_py",
    "zensical",
    "moto",
    "boto3",
    "flask_cors",
}


class _Hidden:
    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, _Hidden())

_find = importlib.metadata.version


def _version(distribution_name: str) -> str:
    if distribution_name.lower().replace("-", "_") in HIDDEN:
        raise importlib.metadata.PackageNotFoundError(distribution_name)
    return _find(distribution_name)


importlib.metadata.version = _version

_find_spec = importlib.util.find_spec


def _spec(name: str, package: str | None = None) -> ModuleSpec | None:
    """`find_spec` that returns None for hidden packages."""
    return None if name in HIDDEN else _find_spec(name, package)


importlib.util.find_spec = _spec
