"""Arguments with several values, in any form: list, tuple, set, generator, array, column of a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import ClipError


def listed(name: str, given: Any, error: type[ClipError], one: tuple[type, ...] = ()) -> list:
    """Convert an argument to a list: from a list, tuple, set, generator, array, or a column of a table.

    Args:
        name: name of the argument.
        given: its value.
        error: the class of exception to raise.
        one: types of a single value, which becomes a list of one although it may be iterable.

    Raises:
        ClipError: the value is not iterable, or is empty.
    """
    values = values_of(name, given, error, one)
    if not values:
        raise error(f"{name} is empty: leave it out, or give at least one")
    return values


def values_of(name: str, given: Any, error: type[ClipError], one: tuple[type, ...] = ()) -> list:
    """As `listed`, but there may be none."""
    if isinstance(given, np.ndarray) and given.ndim == 0:
        given = given.item()
    if isinstance(given, one):
        return [given]
    table = hasattr(given, "columns")  # iterating over a data frame would give the names of its columns
    single = isinstance(given, (str, bytes)) or table or hasattr(given, "read")
    if single or not isinstance(given, Iterable):
        raise error(f"{name} is a {type(given).__name__}, expected a list")
    if hasattr(given, "to_pylist"):  # a column of Arrow, whose items would be scalars of its own
        return given.to_pylist()
    return list(given)
