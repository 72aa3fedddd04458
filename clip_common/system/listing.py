"""Arguments that mean several things, in whatever form people have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import ClipError


def listed(name: str, given: Any, error: type[ClipError], one: tuple[type, ...] = ()) -> list:
    """An argument as a list: of a list, tuple, set, generator, array, or a column of a table.

    Args:
        name: the argument's.
        given: its value.
        error: what is raised.
        one: types of which a value is one thing, a list of one, although it may be iterated over.

    Raises:
        ClipError: it cannot be listed, or nothing is in it.
    """
    if isinstance(given, np.ndarray) and given.ndim == 0:
        given = given.item()
    if isinstance(given, one):
        return [given]
    table = hasattr(given, "columns")  # would be iterated over by the names of its columns
    single = isinstance(given, (str, bytes)) or table or hasattr(given, "read")
    if single or not isinstance(given, Iterable):
        raise error(f"{name} is a {type(given).__name__}, expected a list")
    found = list(given)
    if not found:
        raise error(f"{name} is empty: leave it out, or give at least one")
    return found
