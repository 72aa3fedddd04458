"""Embed parts on a Ray cluster with Ray Data: each actor holds the model and processes whole parts.

A part that is computed twice, because a node died before it reported the part, replaces itself: the number
and the items of a part are fixed beforehand.
"""

from __future__ import annotations

import pickle
from collections.abc import Generator, Iterable
from typing import Any

import ray
from ray.data import ActorPoolStrategy
from ray.exceptions import RayActorError

from ..errors import ClipError, RequestError
from ..system.ray_job import RayJob
from .origin import Origin
from .parts import Failure, Job, Part, make_parts
from .store import Store

_RETRIES = 10  # for a part whose worker died, with its machine or because of the images in the part


class _Worker:
    """The actor. If a part cannot be written, it skips the parts after it; a later run makes them."""

    def __init__(self, store: Store, job: Job, origin: Origin) -> None:
        self._store, self._job, self._origin = store, job, origin
        self._predictor = job.predictor()
        self._fault: ClipError | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._fault is None:
            try:
                (made,) = make_parts(
                    [pickle.loads(row["part"])], self._store, self._job, self._origin, self._predictor
                )
                return {"made": pickle.dumps(made)}
            except ClipError as error:  # raised here, it would arrive wrapped in a long Ray traceback
                self._fault = error
        return {"made": pickle.dumps(self._fault)}


def make_parts_on_ray(
    parts: Iterable[Part], store: Store, job: Job, origin: Origin, address: str | None
) -> Generator[tuple[int, list[Failure]], None, None]:
    """Embed parts on a cluster, with one actor per CPU or GPU; yields as `make_parts` does.

    Args:
        parts: numbers and items of the parts.
        store: on storage that all machines share.
        job: how to embed.
        origin: written into the metadata of the parts.
        address: address of the cluster; None starts one on this machine.

    Raises:
        RequestError: a part cannot be written, or its worker died too often.
    """
    started = not ray.is_initialized()
    if started:
        ray.init(
            address or "local",
            job_config=RayJob(),
            include_dashboard=None if address else False,
            logging_level="warning",
        )
    try:
        # As bytes: Ray logs the content of types that Arrow does not know, and an address may be signed.
        rows = [{"part": pickle.dumps(part)} for part in parts]
        if rows:
            yield from _made(_dataset(rows, store, job, origin))
    finally:
        if started:
            ray.shutdown()


def _dataset(rows: list[dict[str, Any]], store: Store, job: Job, origin: Origin) -> ray.data.Dataset:
    """The parts to make, as a lazy data set: reading its rows runs the workers."""
    cpus = int(ray.cluster_resources().get("GPU" if job.use_gpu else "CPU", 1))
    resources: dict[str, Any] = {"num_gpus": 1} if job.use_gpu else {"num_cpus": 1}
    return ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Worker,
        fn_constructor_args=(store, job, origin),
        compute=ActorPoolStrategy(min_size=1, max_size=max(1, min(cpus, len(rows)))),
        max_restarts=-1,
        max_task_retries=_RETRIES,
        **resources,
    )


def _made(data: ray.data.Dataset) -> Generator[tuple[int, list[Failure]], None, None]:
    """Run the workers; yields what each part's worker returns.

    Raises:
        RequestError: a part cannot be written, or its worker died too often.
    """
    fault: ClipError | None = None
    rows = iter(data.iter_rows())
    try:
        for row in rows:
            made = pickle.loads(row["made"])
            if isinstance(made, ClipError):
                fault = fault or made
            else:
                yield made
    except RayActorError as error:
        raise RequestError(
            f"a Ray worker died {_RETRIES + 1} times on the same images: see Ray's log, and check that there "
            "is enough memory; --executor local shows where it fails. What was written before is kept"
        ) from error
    finally:
        del rows, data  # ends what Ray Data runs for them, also if the reader stops early
    if fault:  # only at the end: threads of Ray Data abort the process if Ray is shut down at the same time
        raise fault
