"""Vectors for everything that is new or changed, part by part; what is interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from ..config import Pretrained
from ..errors import ClipError, ImageError, RequestError
from ..predictor import Predictor, PredictorOptions
from ..preprocessing.image import image_size
from ..system.prefetch import prefetch
from ..system.progress import progress_bar
from ..zero_shot.scoring import l2_normalize
from .sources import Item
from .store import Origin, Row, Store

Failure = tuple[Item, str]
Part = tuple[int, list[Item]]
"""Its number, and what goes into it."""


@dataclass(frozen=True)
class Job:
    """How vectors are made, the same on every machine that makes them.

    Attributes:
        part_size: images in a part; a kill costs the work on one part at most.
    """

    record: Pretrained
    options: PredictorOptions = field(default_factory=PredictorOptions)
    batch_size: int = 32
    use_gpu: bool = False
    dtype: str = "float32"
    part_size: int = 1000

    def predictor(self) -> Predictor:
        """The model that makes them."""
        return self.options.predictor(self.record)

    def origin(self, predictor: Predictor) -> Origin:
        """What stands in each part's metadata."""
        sha256 = predictor.weights_sha256
        return Origin(
            self.record.name, sha256, self.record.config.embed_dim, self.dtype, self.options.precision
        )


@dataclass
class Report:
    """What a run did."""

    embedded: int = 0
    failed: int = 0
    known: int = 0
    removed: int = 0
    failed_before: int = 0


def embed(
    items: Iterable[Item],
    output: Path,
    job: Job,
    prune: bool = False,
    address: str | None = None,
    ray: bool = False,
) -> Report:
    """Give vectors to what has none yet, and to what changed.

    Args:
        items: what there is.
        output: the folder of the store.
        job: how.
        prune: also take out what is not among `items` any more.
        address: a Ray cluster's, with `ray`; None starts one on this machine.
        ray: work on a Ray cluster, whose machines see the same files under the same paths.

    Raises:
        RequestError: another process writes there, or the folder holds other vectors.
    """
    store = Store(output)
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".lock", timeout=0):
            return _embed(list(items), store, job, prune, address, ray)
    except Timeout:
        raise RequestError(
            f"another process writes into {output}: wait for it, or choose another folder"
        ) from None


def _embed(items: list[Item], store: Store, job: Job, prune: bool, address: str | None, ray: bool) -> Report:
    predictor = job.predictor()
    origin = job.origin(predictor)
    store.require(origin)
    known, errors = store.known(), store.errors()
    pending = [item for item in items if known.get(item.path) != item.stamp]
    gone = {item.path for item in pending if item.path in known}  # changed
    if prune:
        gone |= known.keys() - {item.path for item in items}
    report = Report(removed=store.remove(gone))
    errors = {path: error for path, error in errors.items() if path not in gone}
    store.write_errors(errors)
    report.failed_before = sum(item.path in errors for item in items)
    report.known = len(items) - len(pending) - report.failed_before
    parts = _parts(pending, store.next_number(), job.part_size)
    with progress_bar(total=len(pending), desc="embed", unit="", mininterval=1) as bar:
        if ray:
            from .ray_executor import make_parts_on_ray

            results = make_parts_on_ray(parts, store.folder.resolve(), job, origin, address)
        else:
            results = (make_part(part, store, job, origin, predictor, bar) for part in parts)
        for embedded, failures in results:
            report.embedded += embedded
            report.failed += len(failures)
            if failures:
                errors |= {item.path: (item.stamp, reason) for item, reason in failures}
                store.write_errors(errors)
            if ray:
                bar.update(embedded + len(failures))
    return report


def _parts(items: Sequence[Item], first: int, size: int) -> Iterator[Part]:
    for number, start in zip(itertools.count(first), range(0, len(items), size), strict=False):
        yield number, list(items[start : start + size])


def make_part(
    part: Part, store: Store, job: Job, origin: Origin, predictor: Predictor, bar: tqdm | None = None
) -> tuple[int, list[Failure]]:
    """Make and write one part; returns how many vectors are in it, and what has none and why."""
    number, items = part
    rows: list[Row] = []
    failures: list[Failure] = []
    images = [item for item in items if item.file is not None]
    for batch in _batches(
        prefetch(lambda item: _prepare(predictor, item), images, job.batch_size), job.batch_size
    ):
        good = [prepared for prepared in batch if isinstance(prepared, _Prepared)]
        failures += [failure for failure in batch if isinstance(failure, tuple)]
        if good:
            features = predictor.encode_image(np.stack([one.pixels for one in good]), job.use_gpu)
            for one, vector in zip(good, l2_normalize(features), strict=True):
                rows.append(Row(one.item, vector, one.width, one.height, one.sha256))
        if bar is not None:
            bar.update(len(batch))
    texts = [item for item in items if item.file is None]
    for item, vector in _text_vectors(predictor, texts, job, failures):
        rows.append(Row(item, vector))
    if bar is not None:
        bar.update(len(texts))
    if rows:
        store.write_part(number, rows, origin)
    return len(rows), failures


@dataclass(frozen=True)
class _Prepared:
    item: Item
    pixels: np.ndarray  # float32 [3, R, R]
    width: int
    height: int
    sha256: str


def _prepare(predictor: Predictor, item: Item) -> _Prepared | Failure:
    """Read, hash, decode and resize an image, in a thread."""
    try:
        content = item.read()
        pixels = predictor.prepare((item.path, content))
    except OSError as error:
        return item, f"{item.path}: cannot be read ({error.strerror or error})"
    if isinstance(pixels, ImageError):
        return item, str(pixels)
    width, height = image_size(content)
    return _Prepared(item, pixels, width, height, hashlib.sha256(content).hexdigest())


def _text_vectors(
    predictor: Predictor, items: list[Item], job: Job, failures: list[Failure]
) -> Iterator[tuple[Item, np.ndarray]]:
    """Vectors of texts; one that is too long is a failure of its own."""
    good = []
    for item in items:
        try:
            predictor.tokenize([item.caption or ""])
            good.append(item)
        except ClipError as error:
            failures.append((item, str(error)))
    if good:
        features = predictor.text_features([item.caption or "" for item in good], job.batch_size, job.use_gpu)
        yield from zip(good, l2_normalize(features), strict=True)


def _batches(items: Iterable[_Prepared | Failure], size: int) -> Iterator[list[_Prepared | Failure]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
