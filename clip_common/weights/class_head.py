"""Classes stored in a weights file by `adapt`, in addition to the two towers.

They are a tensor `class_vectors`, and the names of the classes in the file's record. A module with such
weights classifies among these classes by the vectors; other labels are encoded by the text tower as usual.
An image cache consists of two more tensors, `cache_keys` and `cache_values`, and its parameters in the
record, see `zero_shot/cached_labels.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import LabelError, WeightsError
from ..text.prompts import check_labels
from .model_settings import read_note
from .tensor_names import CACHE_KEYS, CACHE_VALUES, CLASS_VECTORS, State

_UNIT = 1e-3  # tolerance for the unit length of a key


MOST_STRENGTH = 1_000_000
"""Largest value of a cache's parameters: scores with much larger ones are not numbers."""


@dataclass(frozen=True)
class CacheStrength:
    """The parameters of an image cache.

    Attributes:
        alpha: weight of the cache; 0 ignores it.
        beta: decay of the affinity to a key with distance.
        temperature: divisor of all logits, so that scores are not overconfident.
    """

    alpha: float
    beta: float
    temperature: float = 1.0


@dataclass(frozen=True)
class ImageCache:
    """Embeddings of a few images per class.

    Attributes:
        keys: embeddings, float32 [images, d], of unit length, ordered by class.
        values: index of each image's class, int32 [images], ascending; every class occurs.
        strength: the parameters.
    """

    keys: np.ndarray
    values: np.ndarray
    strength: CacheStrength

    def by_class(self) -> tuple[np.ndarray, ...]:
        """The keys of each class, float32 [images of the class, d]."""
        starts = np.flatnonzero(np.diff(self.values, prepend=-1))
        return tuple(np.split(self.keys, starts[1:]))


@dataclass(frozen=True)
class Classes:
    """Classes with the vectors that the unit features of images are multiplied by.

    Attributes:
        names: names of the classes.
        vectors: float32 [classes, d]. Not of unit length: training may make a class likelier than another.
        cache: an image cache, if there is one.
    """

    names: tuple[str, ...]
    vectors: np.ndarray
    cache: ImageCache | None = None

    def have(self, labels: Sequence[str]) -> bool:
        """Whether all of these labels are among the classes."""
        return set(labels) <= set(self.names)

    def places(self, labels: Sequence[str]) -> list[int]:
        """Indices of some of the classes."""
        place = {name: i for i, name in enumerate(self.names)}
        return [place[label] for label in labels]

    def tensors(self) -> State:
        """The tensors to store in a weights file."""
        own = {CLASS_VECTORS: self.vectors}
        return own | ({CACHE_KEYS: self.cache.keys, CACHE_VALUES: self.cache.values} if self.cache else {})

    def note(self) -> dict[str, Any]:
        """The fields to store in the record of a weights file."""
        own: dict[str, Any] = {"classes": self.names}
        return own | ({"cache": asdict(self.cache.strength)} if self.cache else {})


def read_classes(weights: Path, embed_dim: int) -> Classes | None:
    """Read the classes in a weights file; None if it has none, as any file not written by `adapt`.

    Raises:
        WeightsError: the classes are damaged.
    """
    if weights.suffix != ".safetensors":
        return None
    try:
        with safe_open(weights, framework="np") as file:
            names = {CLASS_VECTORS, CACHE_KEYS, CACHE_VALUES} & set(file.keys())
            if CLASS_VECTORS not in names:
                return None
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError):
        return None  # not a safetensors file: the reader of weights says what it is
    record = read_note(weights)
    try:
        checked = check_labels(record.get("classes"))  # type: ignore[arg-type]
    except LabelError as error:
        raise WeightsError(f"{weights}: the classes in its record cannot be used: {error}") from error
    vectors = tensors[CLASS_VECTORS]
    _require(weights, CLASS_VECTORS, vectors, np.float32, (len(checked), embed_dim))
    has_cache = len(tensors) > 1 or "cache" in record
    cache = _cache(weights, tensors, record, len(checked), embed_dim) if has_cache else None
    return Classes(checked, vectors, cache)


def _cache(weights: Path, tensors: State, record: dict[str, Any], classes: int, embed_dim: int) -> ImageCache:
    """Build and check the image cache of a weights file.

    Raises:
        WeightsError: it is incomplete or damaged.
    """
    noted = record.get("cache")
    try:
        strength = CacheStrength(**{name: float(value) for name, value in noted.items()})  # type: ignore[union-attr]
        keys, values = tensors[CACHE_KEYS], tensors[CACHE_VALUES]
    except (AttributeError, TypeError, ValueError, KeyError, OverflowError) as error:
        raise WeightsError(f"{weights}: its cache of images is incomplete: write it again") from error
    if not 0 <= strength.alpha <= MOST_STRENGTH or not all(
        0 < value <= MOST_STRENGTH for value in (strength.beta, strength.temperature)
    ):
        raise WeightsError(
            f"{weights}: its cache should have an alpha of at least 0, and other values above 0, all at most "
            f"{MOST_STRENGTH:,}"
        )
    _require(weights, CACHE_KEYS, keys, np.float32, (len(values), embed_dim))
    _require(weights, CACHE_VALUES, values, np.int32, (len(keys),))
    if (np.diff(values) < 0).any() or not np.array_equal(np.unique(values), np.arange(classes)):
        raise WeightsError(
            f"{weights}: {CACHE_VALUES} should be increasing from 0 to {classes - 1} without gaps"
        )
    if (np.abs(np.linalg.norm(keys, axis=1) - 1) > _UNIT).any():
        raise WeightsError(f"{weights}: {CACHE_KEYS} should be of length 1")
    return ImageCache(keys, values, strength)


def _require(weights: Path, name: str, tensor: np.ndarray, kind: type, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape or tensor.dtype != kind or not np.isfinite(tensor).all():
        raise WeightsError(f"{weights}: {name} should be finite, {np.dtype(kind)} {list(shape)}")
