"""Embed every item that is new or has changed, part by part; an interrupted run can be resumed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..config import Pretrained
from ..errors import ClipError, ImageError, RequestError
from ..inputs import check_count
from ..predictor import Predictor, PredictorOptions
from ..preprocessing.image import image_size
from ..system.prefetch import prefetch
from ..system.progress import progress_bar
from ..system.words import counted
from ..zero_shot.scoring import l2_normalize
from .items import Item, Items
from .origin import Origin
from .store import Row, Store


class Failure(NamedTuple):
    """An item that could not be embedded, and why.

    Attributes:
        may_pass: the fault may be temporary, such as a read error, so the next run tries again.
    """

    item: Item
    reason: str
    may_pass: bool = False


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


@dataclass
class Report:
    """The result of a run, as numbers of items.

    Attributes:
        embedded: newly embedded.
        failed: could not be embedded in this run.
        known: were embedded already and have not changed.
        removed: were removed from the store.
        failed_before: failed in an earlier run, have not changed since, and were not tried again.
        reasons: a message for each of `failed` and `failed_before`.
        faults: a message for each source that could not be read, entirely or in part.
        kept: are in the store but not among the sources, and were not pruned because a fault may hide them.
        passed_over: summary of the files that are not readable images.
    """

    embedded: int = 0
    failed: int = 0
    known: int = 0
    removed: int = 0
    failed_before: int = 0
    reasons: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    kept: int = 0
    passed_over: str = ""

    @property
    def complete(self) -> bool:
        """Whether every item of the sources has an embedding."""
        return not (self.failed or self.failed_before or self.faults)


def embed(
    items: Items,
    output: Path | str,
    job: Job,
    prune: bool = False,
    address: str | None = None,
    ray: bool = False,
    prune_all: bool = False,
) -> Report:
    """Embed the items that are new or have changed, and write them to a store.

    Args:
        items: the items, from `items_of`.
        output: folder of the store, or its address in a bucket.
        job: how to embed.
        prune: also remove what is no longer among `items`, except where a fault may hide it.
        address: address of a Ray cluster, with `ray`; None starts one on this machine.
        ray: run on a Ray cluster, whose machines must see the same files and buckets.
        prune_all: as `prune`, even if that removes everything the store held.

    Raises:
        RequestError: another process writes to the store, it holds embeddings of another origin, or `prune`
            would remove everything.
    """
    check_count("batch_size", job.batch_size)
    check_count("part_size", job.part_size)
    store = Store(output)
    with store.held():
        return _Run(items, store, job, prune or prune_all, prune_all)(address, ray)


class _Run:
    """One run: compare the items with the store, then embed what is missing, part by part."""

    def __init__(self, items: Items, store: Store, job: Job, prune: bool, prune_all: bool) -> None:
        self._store, self._job = store, job
        self._predictor = job.predictor()
        self._origin = job.origin(self._predictor)
        store.require(self._origin)
        store.sweep()
        self._items = items.with_root(_root(store, items.root))
        self._known, self._errors = store.known(), store.errors()
        faults = [fault.message for fault in items.faults]
        self._report = Report(faults=faults, passed_over=items.summary())
        self._gone = self._out_of_sources(prune, prune_all)
        for path in self._gone:
            self._errors.pop(path, None)

    def _out_of_sources(self, prune: bool, prune_all: bool) -> set[str]:
        """Paths to remove because no source has them any more."""
        if not prune:
            return set()
        missing = (self._known.keys() | self._errors.keys()) - self._items.by_path.keys()
        gone = {path for path in missing if not self._items.may_hold(path)}
        self._report.kept = len(missing) - len(gone)
        if self._known and gone >= self._known.keys() and not prune_all:
            raise RequestError(
                f"{self._store.folder}: none of its {counted(len(self._known), 'embedding')} is among the "
                "sources; to take all of them out say --prune_all"
            )
        return gone

    def __call__(self, address: str | None, ray: bool) -> Report:
        pending = self._pending()
        report, store = self._report, self._store
        store.write_errors(self._errors)
        report.removed = store.remove(self._gone)
        parts = _parts(pending, store.next_number(), self._job.part_size)
        with progress_bar(total=len(pending), desc="embed", unit="", mininterval=1) as bar:
            if ray:
                from .ray_executor import make_parts_on_ray

                results = make_parts_on_ray(parts, store, self._job, self._origin, address)
            else:
                results = make_parts(parts, store, self._job, self._origin, self._predictor, bar)
            with closing(results):  # its thread ends here after an error too, not when garbage is collected
                for embedded, failures in results:
                    report.embedded += embedded
                    if failures:
                        self._fail(failures)
                        store.write_errors(self._errors)
                    if ray:
                        bar.update(embedded + len(failures))
        return report

    def _pending(self) -> list[Item]:
        """The items to embed. Records known faults, and refreshes the stamps of unchanged content."""
        pending, doubtful = [], []
        for item in self._items:
            stamp, _ = self._known.get(item.path, (None, None))
            failed_at, reason = self._errors.get(item.path, (None, ""))
            if item.fault is not None:
                self._fail([Failure(item, item.fault, may_pass=True)])
            elif stamp is not None and stamp == item.with_caption_of(stamp):
                self._errors.pop(item.path, None)
                self._report.known += 1
            elif stamp is not None:
                doubtful.append(item)
            elif failed_at and failed_at == item.recorded_stamp():
                self._report.failed_before += 1
                self._report.reasons.append(reason)
            else:
                self._errors.pop(item.path, None)
                pending.append(item)
        stamps: dict[str, str] = {}
        with closing(prefetch(self._compared, doubtful, 32, _waiting(doubtful))) as verdicts:
            for item, verdict in zip(doubtful, verdicts, strict=True):
                self._errors.pop(item.path, None)
                if isinstance(verdict, Failure):  # what was embedded stays until the file can be read
                    self._fail([verdict])
                elif verdict:
                    stamps[item.path] = item.with_caption_of(self._known[item.path][0])
                    self._report.known += 1
                else:
                    self._gone.add(item.path)
                    pending.append(item)
        self._store.restamp(stamps)
        return pending

    def _compared(self, item: Item) -> bool | Failure:
        """Whether an item whose stamp has changed still has the same content and caption."""
        stamp, sha256 = self._known[item.path]
        try:
            if item.file is None or sha256 is None:
                return False
            content = item.read()
        except OSError as error:
            return _unreadable(item, error)
        except ClipError:
            return False
        _, _, caption = stamp.partition(" ")
        _, _, given = item.recorded_stamp().partition(" ")
        return hashlib.sha256(content).hexdigest() == sha256 and (item.caption is None or given == caption)

    def _fail(self, failures: Sequence[Failure]) -> None:
        self._report.failed += len(failures)
        self._report.reasons += [failure.reason for failure in failures]
        for item, reason, may_pass in failures:
            self._errors[item.path] = ("" if may_pass else item.recorded_stamp(), reason)


def _root(store: Store, given: Path) -> Path:
    """The root of a store's relative paths: the recorded one, if that folder still exists."""
    noted = store.root()
    if noted is not None and noted.is_dir():
        return noted
    store.write_root(given)
    return given


def _parts(items: Sequence[Item], first: int, size: int) -> Iterator[Part]:
    for number, start in zip(itertools.count(first), range(0, len(items), size), strict=False):
        yield number, list(items[start : start + size])


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
    reading = prefetch(partial(_prepare, predictor), images, job.batch_size, _waiting(images))
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


def _waiting(items: Iterable[Item]) -> int:
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
        return _unreadable(item, error)
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


def _unreadable(item: Item, error: OSError) -> Failure:
    return Failure(item, f"{item.path}: cannot be read ({error.strerror or error})", may_pass=True)


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
