"""Embed every item that is new or has changed, part by part; an interrupted run can be resumed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ClipError, RequestError
from ..inputs import check_count
from ..system.prefetch import prefetch
from ..system.progress import progress_bar
from ..system.words import counted
from .items import Item, Items
from .parts import Failure, Job, Part, make_parts, threads_for
from .store import Store


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
                "sources; give --prune_all to remove all of them"
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
        """The items to embed. Records known faults."""
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
        return pending + self._changed(doubtful)

    def _changed(self, doubtful: Sequence[Item]) -> list[Item]:
        """Of items whose stamps have changed, those with other content. The others get their new stamps."""
        changed: list[Item] = []
        stamps: dict[str, str] = {}
        with closing(prefetch(self._compared, doubtful, 32, threads_for(doubtful))) as verdicts:
            for item, verdict in zip(doubtful, verdicts, strict=True):
                self._errors.pop(item.path, None)
                if isinstance(verdict, Failure):  # what was embedded stays until the file can be read
                    self._fail([verdict])
                elif verdict:
                    stamps[item.path] = item.with_caption_of(self._known[item.path][0])
                    self._report.known += 1
                else:
                    self._gone.add(item.path)
                    changed.append(item)
        self._store.restamp(stamps)
        return changed

    def _compared(self, item: Item) -> bool | Failure:
        """Whether an item whose stamp has changed still has the same content and caption."""
        stamp, sha256 = self._known[item.path]
        try:
            if item.file is None or sha256 is None:
                return False
            content = item.read()
        except OSError as error:
            return Failure.unread(item, error)
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
