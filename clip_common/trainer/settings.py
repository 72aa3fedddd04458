"""What fixes a run, and its schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class RunSettings:
    """The same settings and data give the same curve.

    Attributes:
        batch_size: images in a step, over all workers.
        learning_rate: the highest, after `warm_up` steps.
        average_decay: of the exponential average of the weights, which is what a run gives.
        workers: processes that share each batch.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warm_up: int
    weight_decay: float
    average_decay: float
    workers: int
    seed: int


def learning_rate(step: int, settings: RunSettings) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < settings.warm_up:
        return settings.learning_rate * (step + 1) / settings.warm_up
    progress = (step - settings.warm_up) / max(settings.steps - settings.warm_up, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
