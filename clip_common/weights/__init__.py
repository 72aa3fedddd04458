"""Weights of a module: located, downloaded, read without executing code, renamed, and checked."""

from .locate import find, find_local

__all__ = ["find", "find_local"]
