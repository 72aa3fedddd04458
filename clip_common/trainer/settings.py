"""The settings of a training run, and its learning rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run. The same settings and data give the same loss curve.

    Attributes:
        steps: number of steps.
        batch_size: images in a step, over all workers.
        learning_rate: the maximum, reached after `warm_up` steps.
        warm_up: steps until then.
        weight_decay: weight decay of AdamW.
        average_decay: decay of the exponential average of the weights, which is the result of a run.
        workers: processes that share each batch.
        seed: seed of all random choices.
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
    """The learning rate of a step: linear warm-up, then half a cosine to zero."""
    if step < settings.warm_up:
        return settings.learning_rate * (step + 1) / settings.warm_up
    progress = (step - settings.warm_up) / max(settings.steps - settings.warm_up, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
