"""A module's weights: found, downloaded, read without running what is in them, renamed, checked."""

from .locate import find, find_local

__all__ = ["find", "find_local"]
