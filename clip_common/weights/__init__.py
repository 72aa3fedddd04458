"""A module's weights: found, downloaded, read without running anything in them, renamed, checked. No framework."""

from .locate import find, find_local

__all__ = ["find", "find_local"]
