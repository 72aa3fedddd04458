"""Compares answers of the model in their JSON form."""

from __future__ import annotations

from typing import Any

import numpy as np


def flat(result: Any) -> tuple[list[str], np.ndarray]:
    """The labels and numbers of an answer, in order."""
    if isinstance(result, dict):
        return [], np.array([value for rows in result.values() for row in rows or [] for value in row])
    items = [item for image in result for item in image]
    return [item["label"] for item in items], np.array([item["score"] for item in items])


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    assert flat(found)[0] == flat(expected)[0]
    np.testing.assert_allclose(flat(found)[1], flat(expected)[1], atol=1e-5, rtol=1e-5)
