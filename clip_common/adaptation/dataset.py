"""The data set of an adaptation: images with classes or captions, and its split."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import RequestError
from ..evaluation.datasets import read_captioned, read_labelled, table_of
from ..evaluation.labelled import named_file
from ..inputs import NamedImage
from ..preprocessing.image import ImageInput
from ..system.cache import digest_of
from ..system.words import counted


@dataclass(frozen=True)
class Dataset:
    """Images, each with one of the texts.

    Attributes:
        images: the images. An image with several captions occurs several times.
        targets: indices into `texts`, int64 [n].
        texts: distinct names of classes, or distinct captions.
        captioned: whether the texts are captions.
    """

    images: list[NamedImage]
    targets: np.ndarray
    texts: list[str]
    captioned: bool

    def part(self, rows: np.ndarray) -> Dataset:
        """A subset of the images, with all texts."""
        chosen = [self.images[row] for row in rows]
        return Dataset(chosen, self.targets[rows], self.texts, self.captioned)

    def stamp(self) -> str:
        """A hash of the names and targets."""
        names = "\n".join(name for name, _ in self.images)
        return digest_of("\0".join([names, *self.texts, ",".join(map(str, self.targets))]))

    def content_stamp(self) -> str:
        """A hash of the names, targets and contents."""
        states = dict(self.images).values()
        return digest_of("\0".join([self.stamp(), *map(_state, states)]))


def _state(image: ImageInput | str | Path) -> str:
    """A stamp that changes with an image's content: for a file, its size, mtime and ctime."""
    if isinstance(image, (str, Path)):
        try:
            status = os.stat(image)  # noqa: PTH116
        except OSError as error:
            return str(error.errno)
        return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
    content = image if isinstance(image, bytes) else np.asarray(image).tobytes()
    return hashlib.sha256(content).hexdigest()


def read_dataset(source: str, texts: list[str] | None = None) -> Dataset:
    """Read a data set in a form that `evaluate` reads, or a table with a column `caption`.

    Args:
        source: a folder with a folder per class, a `.csv`, or `NAME:FOLDER`.
        texts: for classes, the exact classes in their order; for captions, texts that come first.

    Raises:
        RequestError: the data set does not exist, or is invalid.
    """
    table = table_of(source)
    if table is None or table.place(["caption"]) is None:
        data = read_labelled(source, texts, table=table)
        return Dataset(data.images, data.targets, data.classes, captioned=False)
    pairs = read_captioned(source, table)
    captions = list(dict.fromkeys([*(texts or []), *(caption for _, caption in pairs)]))
    place = {caption: i for i, caption in enumerate(captions)}
    targets = np.array([place[caption] for _, caption in pairs])
    return Dataset([named_file(file) for file, _ in pairs], targets, captions, captioned=True)


def split(dataset: Dataset, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Split a data set into rows for training and rows held out, both int64.

    The split depends on hashes of the file names, so it is stable when images are added, and all captions of
    an image are on the same side. With classes, every class is split.

    Args:
        dataset: the data set.
        share: share to hold out, between 0 and 1.

    Raises:
        RequestError: one side would be empty.
    """
    order = np.array([digest_of(Path(name).name) for name, _ in dataset.images])
    held_out = np.zeros(len(order), bool)
    if dataset.captioned:
        held_out = np.array([int(digest[:8], 16) < share * 2**32 for digest in order])
    else:
        for target in np.unique(dataset.targets):
            rows = np.flatnonzero(dataset.targets == target)
            count = math.ceil(share * len(rows)) if len(rows) > 1 else 0
            held_out[rows[np.argsort(order[rows], kind="stable")[:count]]] = True
    if held_out.all() or not held_out.any():
        raise RequestError(
            f"{counted(len(order), 'image')} cannot be divided with --held_out {share}: give others "
            "with --validation, or keep all for a cache with --head cache --held_out 0"
        )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
