"""Classes that travel with weights: what `adapt` leaves in its file beside the two towers.

A tensor `class_vectors`, and the classes' names in the file's record. Such a module chooses among its own
classes by those vectors; any other label goes through the text tower, as ever.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import LabelError, WeightsError
from ..text.prompts import check_labels
from .tensor_names import CLASS_VECTORS


@dataclass(frozen=True)
class Classes:
    """Classes by name, each with the vector that an image's unit feature is multiplied by.

    Attributes:
        vectors: float32 [classes, d], of any length: a class may be likelier than another.
    """

    names: tuple[str, ...]
    vectors: np.ndarray

    def have(self, labels: Sequence[str]) -> bool:
        """Whether all of these labels are among the classes."""
        return set(labels) <= set(self.names)

    def of(self, labels: Sequence[str]) -> np.ndarray:
        """The vectors of some of the classes, [labels, d]."""
        return self.vectors[[self.names.index(label) for label in labels]]


def read_classes(weights: Path, embed_dim: int) -> Classes | None:
    """The classes in a weights file; None for one that has none, as all have that `adapt` did not write.

    Raises:
        WeightsError: they are there and damaged.
    """
    if weights.suffix != ".safetensors":
        return None
    try:
        with safe_open(weights, framework="np") as file:
            if CLASS_VECTORS not in file.keys():  # noqa: SIM118, not a dictionary
                return None
            record = json.loads((file.metadata() or {}).get("record", "{}"))
            vectors = file.get_tensor(CLASS_VECTORS)
    except (SafetensorError, OSError, ValueError, RecursionError):
        return None  # not a safetensors file: the reader of weights says what it is
    names = record.get("classes") if isinstance(record, dict) else None
    try:
        checked = check_labels(names)  # type: ignore[arg-type]
    except LabelError as error:
        raise WeightsError(f"{weights}: the classes in its record cannot be used: {error}") from error
    shape, kind = (len(checked), embed_dim), np.float32
    if vectors.shape != shape or vectors.dtype != kind or not np.isfinite(vectors).all():
        raise WeightsError(f"{weights}: {CLASS_VECTORS} should be finite, float32 {list(shape)}")
    return Classes(checked, vectors)
