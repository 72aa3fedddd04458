"""Batches of images, prepared in threads while the engine encodes the ones before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import TypeVar

import numpy as np

from ..errors import ImageError
from ..system.prefetch import prefetch
from .base import Engine

Given = TypeVar("Given")


def encode_images(
    engine: Engine,
    prepare: Callable[[Given], np.ndarray | ImageError],
    images: Iterable[Given],
    batch_size: int,
) -> Iterator[list[np.ndarray | ImageError]]:
    """Encode images batch by batch. Threads preprocess the next batches while the model runs.

    Yields:
        One list per batch, in order, of features, float32 [d], not normalised; an unreadable image is
        represented by its error.
    """
    with closing(prefetch(prepare, images, batch_size)) as prepared:
        while batch := list(islice(prepared, batch_size)):
            yield _encode_readable(engine, batch)


def _encode_readable(engine: Engine, batch: list[np.ndarray | ImageError]) -> list[np.ndarray | ImageError]:
    """Encode the readable images of a batch; errors keep their positions."""
    pixels = [item for item in batch if isinstance(item, np.ndarray)]
    features = iter(engine.encode_image(np.stack(pixels)) if pixels else ())
    return [next(features) if isinstance(item, np.ndarray) else item for item in batch]
