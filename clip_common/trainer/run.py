"""A training run: steps with a progress bar, checkpoints, and a plot of the curves."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import paddle.distributed as dist

from ..errors import TrainingError
from ..system.output import held_folder, save_figure
from ..system.progress import progress_bar
from . import checkpoint
from .settings import RunSettings, learning_rate
from .trainer import Trainer

CHECKPOINT = "checkpoint.npz"
CURVES = "curves.png"
Batch = TypeVar("Batch")


def train(
    trainer: Trainer,
    batch_of: Callable[[int], Batch],
    output: Path,
    resume: bool = False,
    save_every: int = 100,
) -> None:
    """Train to the last step, from the beginning or from a checkpoint, as one of the run's workers.

    The first worker writes `checkpoint.npz` and `curves.png` into `output`.

    Args:
        trainer: the trainer, in its initial state.
        batch_of: returns the batch of a step; must depend on its number only.
        output: folder of the run.
        resume: resume from the checkpoint.
        save_every: number of steps between checkpoints.

    Raises:
        TrainingError: invalid data or checkpoint, or the output cannot be written.
    """
    path, settings = output / CHECKPOINT, trainer.settings
    first = dist.get_rank() == 0
    curve: list[tuple[float, float]] = []
    if resume:
        run = checkpoint.load(path)
        trainer.restore(run)
        curve = [tuple(point) for point in run.curve]
    bar = progress_bar(
        total=settings.steps,
        initial=trainer.done,
        desc="train",
        unit="step",
        mininterval=5,
        disable=not first,
    )
    with bar, closing(_stream(batch_of, trainer.done, settings.steps)) as batches:
        for batch in batches:
            start = time.perf_counter()
            loss = trainer.step(batch)
            curve.append((loss, settings.batch_size / (time.perf_counter() - start)))
            mean, rate = np.mean([c[0] for c in curve[-20:]]), curve[-1][1]
            bar.set_postfix(refresh=False, loss=f"{mean:.3f}", images=f"{rate:.0f}/s")
            bar.update()
            if first and (trainer.done % save_every == 0 or trainer.done == settings.steps):
                checkpoint.save(path, trainer.snapshot(np.array(curve)))
                plot(np.array(curve), settings, output / CURVES)


@contextmanager
def begun(output: Path, resume: bool, results: Sequence[str] = ()) -> Iterator[checkpoint.Checkpoint | None]:
    """Lock the folder of a run for the block, and give the checkpoint to resume from, or None for a new run.

    Args:
        output: folder of the run; created if needed.
        resume: go on from its checkpoint.
        results: names of the files that such a run writes beside checkpoint and curves.

    Raises:
        TrainingError: the folder has results of another run, or no checkpoint to resume from.
        RequestError: another process writes there, or the folder is not writable.
    """
    with held_folder(output):
        path = output / CHECKPOINT
        if path.exists() and not resume:
            raise TrainingError(f"{path} exists: continue with --resume, or choose another --output")
        if not path.exists():
            require_none(output, (CURVES, *results))
        yield checkpoint.load(path) if resume else None


def require_none(output: Path, results: Sequence[str]) -> None:
    """Check that a folder has none of these files, which are the results of an earlier run.

    Raises:
        TrainingError: it has one.
    """
    for name in results:
        if (output / name).exists():
            there = f"{output} holds the results of another run ({name})"
            raise TrainingError(f"{there}: choose another --output")


def _stream(batch_of: Callable[[int], Batch], first: int, last: int) -> Generator[Batch, None, None]:
    """The batches of steps `first` to `last` - 1, the next one made while one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(batch_of, first)
        for step in range(first, last):
            batch = coming.result()
            if step + 1 < last:
                coming = pool.submit(batch_of, step + 1)
            yield batch


def plot(curve: np.ndarray, settings: RunSettings, path: Path) -> None:
    """Loss, learning rate and speed over the steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    top.plot(curve[:, 0], alpha=0.3)
    window = min(25, len(curve))
    smooth = np.convolve(curve[:, 0], np.ones(window) / window, "valid")
    top.plot(np.arange(window - 1, len(curve)), smooth)
    top.set_ylabel("loss")
    middle.plot([learning_rate(step, settings) for step in range(len(curve))])
    middle.set_ylabel("learning rate")
    bottom.plot(curve[:, 1])
    bottom.set(ylabel="images a second", xlabel="step")
    save_figure(figure, path)
