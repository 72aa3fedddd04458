"""Data sets in memory: images with one class each, or with any number of labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..inputs import NamedImage
from ..system.file_names import escape_name


@dataclass(frozen=True)
class Labelled:
    """Images, each of one class.

    Attributes:
        targets: indices into `classes`, int64 [n].
        published: the key of its published accuracies, if it is a well-known data set.
    """

    images: list[NamedImage]
    targets: np.ndarray
    classes: list[str]
    published: str | None = None

    @property
    def truth(self) -> np.ndarray:
        """The targets as one-hot rows, bool [n, classes]."""
        return self.targets[:, None] == np.arange(len(self.classes))


@dataclass(frozen=True)
class MultiLabelled:
    """Images, each with any number of labels.

    Attributes:
        truth: which images have which labels, bool [n, classes].
    """

    images: list[NamedImage]
    truth: np.ndarray
    classes: list[str]


def named_file(file: Path) -> NamedImage:
    """An image file with its name for error messages."""
    return escape_name(str(file)), file
