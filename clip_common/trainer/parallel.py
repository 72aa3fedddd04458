"""Data-parallel training with `paddle.distributed`: workers share each batch and make identical steps.

The loss is computed over the whole batch: features are gathered from all workers, each worker backpropagates
through its own, and the sum of the gradients is that of the whole batch.
"""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import os
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from threading import Thread
from typing import Any

import paddle
import paddle.distributed as dist
from paddle import Tensor

from ..errors import TrainingError
from ..system import threads
from ..system.threads import run_in_thread

_PATIENCE = 10.0  # seconds that a worker has to end in when it is asked to


def start(work: Callable[..., None], arguments: tuple, workers: int) -> None:
    """Run `work` in `workers` processes, which communicate by NCCL on GPUs and by Gloo on a CPU.

    Raises:
        TrainingError: a worker ended with an error.
    """
    if workers == 1:
        work(*arguments)
        return
    backend = "nccl" if paddle.is_compiled_with_cuda() else "gloo"
    # Paddle's own joining waits for workers without limit.
    context = dist.spawn(work, arguments, nprocs=workers, join=False, backend=backend)
    try:
        _wait(context.processes, context.error_queues)
    finally:
        _end(context.processes)


def _wait(processes: Sequence[BaseProcess], errors: Sequence[SimpleQueue]) -> None:
    """Wait until all workers have ended, or one of them with an error."""
    running: dict[Any, int] = {process.sentinel: index for index, process in enumerate(processes)}
    readers = [queue._reader for queue in errors]  # type: ignore[attr-defined]
    unread: dict[Any, int] = {reader: index for index, reader in enumerate(readers)}
    told: dict[int, Future[str]] = {}
    while running:
        ready = multiprocessing.connection.wait([*running, *unread])
        for reader in unread.keys() & set(ready):  # a worker with a long traceback waits until it is read
            index = unread.pop(reader)
            told[index] = run_in_thread(errors[index].get)
        for sentinel in running.keys() & set(ready):
            index = running.pop(sentinel)
            processes[index].join()
            if status := processes[index].exitcode:
                raise TrainingError(f"a worker failed: {_reason(status, told.get(index))}")


def _reason(status: int, told: Future[str] | None) -> str:
    if told and status > 0:  # only one that ended by itself has put its traceback whole
        with contextlib.suppress(futures.TimeoutError):
            return told.result(_PATIENCE).strip().splitlines()[-1]
    return f"it ended with status {status}"


def _end(processes: Sequence[BaseProcess]) -> None:
    """End the workers that are left, first as one asks a process to end."""
    for how in ("terminate", "kill"):
        for process in processes:
            getattr(process, how)()  # nothing for one that has ended
        for process in processes:
            process.join(_PATIENCE)


def configure(workers: int) -> None:
    """Set up this process as one of several workers, with its share of the CPU threads."""
    threads.configure()
    if workers > 1:
        Thread(target=_end_with_parent, daemon=True).start()
        dist.init_parallel_env()
        paddle.base.core.set_num_threads(1)


def _end_with_parent() -> None:
    """End this worker with its parent: a killed run must not continue next to the one that resumes it."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def gather(features: Tensor) -> Tensor:
    """The features of all workers, [workers * N, D]; only this worker's own have a gradient."""
    if dist.get_world_size() == 1:
        return features
    parts: list[Tensor] = []
    dist.all_gather(parts, features.detach())
    parts[dist.get_rank()] = features
    return paddle.concat(parts)  # workers x (N D) -> (workers * N) D


def sum_gradients(parameters: list[Tensor]) -> None:
    """Sum each gradient over all workers, in place."""
    if dist.get_world_size() > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)


def shared(parameter: Tensor) -> Tensor:
    """A parameter applied to the whole batch by every worker, with its gradient divided among the workers."""
    constant = parameter.detach()
    return constant + (parameter - constant) / dist.get_world_size()
