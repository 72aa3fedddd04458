"""Compute the embeddings of items and write them, part by part; the work of one process.

`embed` runs it on this machine, `ray_executor` in every worker of a cluster.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..config import Pretrained
from ..errors import ClipError, ImageError
from ..predictor import Predictor, PredictorOptions
from ..preprocessing.image import image_size
from ..system.prefetch import prefetch
from ..zero_shot.scoring import l2_normalize
from .items import Item
from .origin import Origin
from .store import Row, Store

_WAITING = 32  # concurrent reads from other machines

Part = tuple[int, list[Item]]
"""The number of a part, and its items."""


@dataclass(frozen=True)
class Job:
    """How items are embedded; the same on every machine that takes part.

    Attributes:
        part_size: number of items per part. A killed run loses at most two parts: the one being computed and
            the one being written.
    """

    record: Pretrained
    options: PredictorOptions = field(default_factory=PredictorOptions)
    batch_size: int = 32
    use_gpu: bool = False
    dtype: str = "float32"
    part_size: int = 1000

    def predictor(self) -> Predictor:
        """Create the predictor that computes the embeddings."""
        return self.options.predictor(self.record)

    def origin(self, predictor: Predictor) -> Origin:
        """The origin that is written into the metadata of each part."""
        return Origin.of(predictor, self.dtype)


class Failure(NamedTuple):
    """An item that could not be embedded, and why.

    Attributes:
        may_pass: the fault may be temporary, such as a read error, so the next run tries again.
    """

    item: Item
    reason: str
    may_pass: bool = False

    @classmethod
    def unread(cls, item: Item, error: OSError) -> Failure:
        """The failure of an item whose bytes cannot be read now."""
        reason = f"{item.path}: cannot be read ({error.strerror or error})"
        return cls(item, reason, may_pass=True)


def make_parts(
    parts: Iterable[Part],
    store: Store,
    job: Job,
    origin: Origin,
    predictor: Predictor,
    bar: tqdm | None = None,
) -> Generator[tuple[int, list[Failure]], None, None]:
    """Compute and write parts; a part is written while the next one is computed.

    Yields:
        For each written part, its number of embeddings and its failures.
    """
    parts = list(parts)
    images = [item for _, items in parts for item in items if item.file is not None]
    reading = prefetch(partial(_prepare, predictor), images, job.batch_size, threads_for(images))
    writing: Future[tuple[int, list[Failure]]] | None = None
    with closing(reading) as prepared, ThreadPoolExecutor(1, "clip-write") as writer:
        for number, items in parts:
            rows, failures = _make_rows(items, prepared, job, predictor, bar)
            if writing:
                yield writing.result()
            writing = writer.submit(_write, store, number, rows, failures, origin)
        if writing:
            yield writing.result()


def _make_rows(
    items: Sequence[Item],
    prepared: Iterator[_Prepared | Failure],
    job: Job,
    predictor: Predictor,
    bar: tqdm | None,
) -> tuple[list[Row], list[Failure]]:
    """The rows and failures of a part. Takes the part's images from the iterator of prepared images."""
    rows: list[Row] = []
    failures: list[Failure] = []
    left = sum(item.file is not None for item in items)
    while batch := list(itertools.islice(prepared, min(left, job.batch_size))):
        left -= len(batch)
        good = [image for image in batch if isinstance(image, _Prepared)]
        failures += [failure for failure in batch if isinstance(failure, Failure)]
        if good:
            features = predictor.encode_image(np.stack([image.pixels for image in good]), job.use_gpu)
            for image, vector in zip(good, l2_normalize(features), strict=True):
                rows.append(Row(image.item, vector, image.width, image.height, image.sha256))
        if bar is not None:
            bar.update(len(batch))
    texts = [item for item in items if item.file is None]
    for item, vector in _text_vectors(predictor, texts, job, failures):
        rows.append(Row(item, vector))
    if bar is not None:
        bar.update(len(texts))
    return rows, failures


def _write(
    store: Store, number: int, rows: list[Row], failures: list[Failure], origin: Origin
) -> tuple[int, list[Failure]]:
    if rows:
        store.write_part(number, rows, origin)
    return len(rows), failures


def threads_for(items: Iterable[Item]) -> int:
    """Minimum number of threads for items that are read from other machines; 0 if there are none."""
    return _WAITING if any(item.is_remote for item in items) else 0


@dataclass(frozen=True)
class _Prepared:
    item: Item
    pixels: np.ndarray  # float32 [3, R, R]
    width: int
    height: int
    sha256: str


def _prepare(predictor: Predictor, item: Item) -> _Prepared | Failure:
    """Read, hash, decode and resize an image, in a thread; any error becomes the failure of this item."""
    try:
        content = item.read()
    except OSError as error:
        return Failure.unread(item, error)
    except ImageError as error:
        return Failure(item, str(error))
    try:
        pixels = predictor.prepare((item.path, content))
        if isinstance(pixels, ImageError):
            return Failure(item, str(pixels))
        width, height = image_size(content)
    except Exception as error:  # decoders raise anything
        return Failure(item, f"{item.path}: cannot be prepared ({str(error) or type(error).__name__})")
    return _Prepared(item, pixels, width, height, hashlib.sha256(content).hexdigest())


def _text_vectors(
    predictor: Predictor, items: list[Item], job: Job, failures: list[Failure]
) -> Iterator[tuple[Item, np.ndarray]]:
    """Embeddings of texts; a text that is too long is added to `failures`."""
    good = []
    for item in items:
        try:
            predictor.tokenize([item.caption or ""])
            good.append(item)
        except ClipError as error:
            failures.append(Failure(item, str(error)))
    if good:
        features = predictor.text_features([item.caption or "" for item in good], job.batch_size, job.use_gpu)
        yield from zip(good, l2_normalize(features), strict=True)
