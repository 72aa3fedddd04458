"""Interrupts work: training after some steps, or a command by SIGKILL at a random moment."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clip_common.embedding.store import Store
from tests.support.paths import ROOT
from tests.support.stores import contents


@contextmanager
def killed_after(trainer: type[Any], steps: int) -> Iterator[None]:
    """Interrupt the training run within this context after `steps` steps."""
    step = trainer.step

    def step_or_end(self: Any, batch: Any) -> float:
        if self.done == steps:
            raise KeyboardInterrupt
        return step(self, batch)

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(KeyboardInterrupt),
    ):
        patch.setattr(trainer, "step", step_or_end)
        yield


def embedded_through_kills(
    command: Sequence[str], output: Path | str, part: int, most: int, look_every: float, wait_most: float
) -> None:
    """Run `embed`, kill it five times, then run it to the end; after each kill only complete parts are there.

    Args:
        command: the command.
        output: its store.
        part: number of images in a part.
        most: maximum number of parts between two kills.
        look_every: seconds between two checks of the store.
        wait_most: maximum seconds from the last of these parts to the kill.
    """
    rng = random.Random(1)
    kills = 0
    for _ in range(5):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline, goal = time.monotonic() + 60, len(Store(output).parts()) + rng.randint(1, most)
        while process.poll() is None and len(Store(output).parts()) < goal and time.monotonic() < deadline:
            time.sleep(look_every)
        time.sleep(rng.random() * wait_most)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(contents(output)) % part == 0
    assert kills >= 3
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
