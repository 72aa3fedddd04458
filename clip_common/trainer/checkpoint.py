"""Checkpoints: the complete state of a run in one file, written atomically.

The format is plain arrays (`.npz`), never pickles. The images of a step are drawn by a generator that is
seeded with the run's seed and the step's number, so no random state needs to be saved.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor, nn

from ..errors import TrainingError
from ..system.output import atomic_file, reason_of
from ..system.reading import open_npz
from .settings import RunSettings

_MOMENTS = ("moment1_0", "moment2_0", "beta1_pow_acc_0", "beta2_pow_acc_0")
Arrays = dict[str, np.ndarray]


@dataclass
class Checkpoint:
    """The state of a run.

    Attributes:
        step: number of completed steps.
        model: weights, by our layers' names.
        optimizer: moments of AdamW.
        average: exponential moving average of the weights.
        curve: loss and rate (images per second) of each completed step, float64 [step, 2].
        settings: the settings of the run; it can only be resumed with the same.
    """

    step: int
    model: Arrays
    optimizer: Arrays
    average: Arrays
    curve: np.ndarray
    settings: dict

    def require(self, settings: RunSettings) -> None:
        """Check that a run with these settings may resume from this checkpoint.

        Raises:
            TrainingError: the checkpoint is of a run with other settings.
        """
        now = asdict(settings)
        changed = [name for name in now if self.settings.get(name) != now[name]]
        if changed or self.settings.keys() != now.keys():
            said = ", ".join(f"{name} was {self.settings.get(name)} and is {now[name]}" for name in changed)
            raise TrainingError(
                f"the checkpoint is of a run with other settings ({said}): resume with its settings, or "
                "start a new run in another folder"
            )


def model_arrays(model: nn.Layer) -> Arrays:
    """Copy all weights and statistics of a model, by our layers' names."""
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def adam_arrays(parameters: dict[str, Tensor], optimizer: paddle.optimizer.AdamW) -> Arrays:
    """Copy AdamW's moments, by our layers' names: Paddle's names differ between processes."""
    state = optimizer.state_dict()
    return {
        f"{name}:{moment}": state[f"{parameter.name}_{moment}"].numpy().copy()
        for name, parameter in parameters.items()
        for moment in _MOMENTS
    }


def restore_adam(parameters: dict[str, Tensor], optimizer: paddle.optimizer.AdamW, arrays: Arrays) -> None:
    """The inverse of `adam_arrays`, for an optimizer that has not made a step yet."""
    optimizer.set_state_dict(
        {
            f"{parameter.name}_{moment}": paddle.to_tensor(arrays[f"{name}:{moment}"])
            for name, parameter in parameters.items()
            for moment in _MOMENTS
        }
    )


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    Raises:
        TrainingError: it cannot be written; the previous one is unchanged.
    """
    groups = {"model": checkpoint.model, "optimizer": checkpoint.optimizer, "average": checkpoint.average}
    arrays = {f"{group}/{name}": value for group, named in groups.items() for name, value in named.items()}
    settings = np.array(json.dumps(checkpoint.settings))
    try:
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, step=checkpoint.step, curve=checkpoint.curve, settings=settings, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise TrainingError(
            f"cannot write the checkpoint {path}: {reason_of(error)}. "
            "Then continue with --resume: the previous checkpoint is complete"
        ) from error


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        TrainingError: it does not exist, or is damaged.
    """
    if not path.is_file():
        raise TrainingError(f"no checkpoint at {path}: start without --resume")
    try:
        with open_npz(path) as file:
            groups: dict[str, Arrays] = {"model": {}, "optimizer": {}, "average": {}}
            for key in file.files:
                group, _, name = key.partition("/")
                if name:
                    groups[group][name] = file[key]
            settings = json.loads(str(file["settings"]))
            return Checkpoint(int(file["step"]), **groups, curve=file["curve"], settings=settings)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path} is not a complete checkpoint: {error}") from error
