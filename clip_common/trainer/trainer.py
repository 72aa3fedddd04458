"""A model with its optimizer and its average: one step, and the state that a run goes on from."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from ..errors import TrainingError
from . import checkpoint, parallel
from .checkpoint import Arrays, Checkpoint
from .settings import RunSettings, learning_rate


class Trainer:
    """What trains a model; a subclass says what the loss of a batch is.

    Args:
        model: its trainable parameters are trained, those that do not stop gradients.
        settings: the run's.
    """

    def __init__(self, model: nn.Layer, settings: RunSettings) -> None:
        self.model, self.settings = model, settings
        self.trained = {name: p for name, p in model.named_parameters() if not p.stop_gradient}
        decayed = {p.name for name, p in self.trained.items() if p.ndim > 1 and "positional" not in name}
        self.parameters = list(self.trained.values())
        self.adam = paddle.optimizer.AdamW(
            learning_rate=settings.learning_rate,
            beta2=0.98,
            epsilon=1e-6,
            parameters=self.parameters,
            weight_decay=settings.weight_decay,
            apply_decay_param_fun=lambda name: name in decayed,
            grad_clip=nn.ClipGradByGlobalNorm(1.0),
        )
        self.average: Arrays = checkpoint.model_arrays(model)
        self.done = 0

    def loss(self, batch: Any) -> Tensor:
        """The loss of the whole batch, from this worker's part and the features of the other workers."""
        raise NotImplementedError

    def step(self, batch: Any) -> float:
        """Run an optimizer step with this worker's part of a batch; returns the loss of the whole batch.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        rate = learning_rate(self.done, self.settings)
        self.adam.set_lr(rate)
        loss = self.loss(batch)
        loss.backward()
        parallel.sum_gradients(self.parameters)
        self.adam.step()
        for parameter in self.parameters:
            parameter.clear_gradient(set_to_zero=False)
        self.after_step()
        self.done += 1
        self._update_average()
        value = float(loss)
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value} at step {self.done}: lower the learning rate")
        return value

    def after_step(self) -> None:
        """Called after each step, to keep weights within bounds."""

    def _update_average(self) -> None:
        """Update the exponential average of weights and BatchNorm statistics, faster at the beginning."""
        decay = min(self.settings.average_decay, (1 + self.done) / (10 + self.done))
        for name, tensor in self.model.state_dict().items():
            average = self.average[name]
            average += (tensor.numpy() - average) * np.float32(1 - decay)

    def snapshot(self, curve: np.ndarray) -> Checkpoint:
        """The state of the run.

        Raises:
            TrainingError: the weights are no longer finite; the loss would tell only at the next step.
        """
        for name, values in self.average.items():
            if not np.isfinite(values).all():
                what = f"{name} is not finite after step {self.done}"
                raise TrainingError(f"{what}: lower the learning rate or the weight decay")
        return Checkpoint(
            self.done,
            checkpoint.model_arrays(self.model),
            checkpoint.adam_arrays(self.trained, self.adam),
            self.average,
            curve,
            asdict(self.settings),
        )

    def restore(self, run: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            TrainingError: it is of a run with other settings.
        """
        run.require(self.settings)
        self._set_weights(run.model)
        checkpoint.restore_adam(self.trained, self.adam, run.optimizer)
        self.average, self.done = run.average, run.step

    def _set_weights(self, arrays: Arrays) -> None:
        for name, tensor in self.model.state_dict().items():
            tensor.set_value(arrays[name])
