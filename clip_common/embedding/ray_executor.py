"""The same parts, made on a Ray cluster with Ray Data: actors hold the model, each makes whole parts.

A part that is made twice, because the node that made it died before it could say so, replaces itself: its
number and contents were fixed before.
"""

from __future__ import annotations

import pickle
from collections.abc import Generator, Iterable
from typing import Any

import ray
from ray.data import ActorPoolStrategy

from ..errors import ClipError
from ..system.ray_job import RayJob
from .embed import Failure, Job, Part, make_parts
from .origin import Origin
from .store import Store


class _Worker:
    """An actor's model. Once a part could not be written, those that follow are left for another run."""

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
            except ClipError as error:  # as Ray passes it on, it would be a page of Ray's own calls
                self._fault = error
        return {"made": pickle.dumps(self._fault)}


def make_parts_on_ray(
    parts: Iterable[Part], store: Store, job: Job, origin: Origin, address: str | None
) -> Generator[tuple[int, list[Failure]], None, None]:
    """Make parts on a cluster, as many at a time as it has CPUs for; yields as `make_parts` does.

    Args:
        parts: numbers and contents.
        store: on storage that all machines share.
        job: how vectors are made.
        origin: what stands in the parts' metadata.
        address: the cluster's; None starts one on this machine.

    Raises:
        RequestError: a part cannot be written.
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
        # As bytes: of what is none of Arrow's types Ray prints what is in it, and an address may be signed.
        rows = [{"part": pickle.dumps(part)} for part in parts]
        if not rows:
            return
        cpus = int(ray.cluster_resources().get("GPU" if job.use_gpu else "CPU", 1))
        resources: dict[str, Any] = {"num_gpus": 1} if job.use_gpu else {"num_cpus": 1}
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Worker,
            fn_constructor_args=(store, job, origin),
            compute=ActorPoolStrategy(min_size=1, max_size=max(1, min(cpus, len(rows)))),
            max_restarts=-1,
            max_task_retries=-1,
            **resources,
        )
        fault: ClipError | None = None
        for row in data.iter_rows():
            made = pickle.loads(row["made"])
            if isinstance(made, ClipError):
                fault = fault or made
            else:
                yield made
        if fault:  # not before: threads of Ray Data that meet with a Ray that is shut down end the process
            raise fault
    finally:
        if started:
            ray.shutdown()
