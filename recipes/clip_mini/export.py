"""A checkpoint to the weights file that `clip_common` loads: the average, in OpenAI's names and types.

`python -m recipes.clip_mini.export RUN/checkpoint.npz clip_mini.safetensors --data DATA`
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from clip_common.config import MINI
from clip_common.errors import TrainingError
from clip_common.system.cache import atomic_file
from clip_common.trainer.checkpoint import Arrays, load
from clip_common.weights.tensor_names import State, from_own
from clip_common.weights.weights_file import write_safetensors

from .data import DEFAULT_CACHE, Dataset
from .vocabulary import training_vocabulary, whole_table

# As in OpenAI's files: statistics, norms and the scale stay float32. The two embeddings are float16 here, as
# in the prototype: they are most of the file.
_FLOAT32 = re.compile(r"(^|\.)(bn\d|ln_\w+|downsample\.1)\.|^(logit_scale|positional_embedding)$")


def openai_state(average: Arrays, vocabulary: np.ndarray, vocab_size: int) -> State:
    """Weights by our layers' names to OpenAI's names, orientation and types; other tokens become zero."""
    state = {
        name: value.astype(np.float32 if _FLOAT32.search(name) else np.float16)
        for name, value in from_own(average).items()
    }
    table = state["token_embedding.weight"]
    state["token_embedding.weight"] = whole_table(table, vocabulary, vocab_size)
    return state


def export(checkpoint: Path, target: Path, data: Path) -> None:
    """Write a checkpoint's average as safetensors.

    Raises:
        TrainingError: the checkpoint or the data cannot be read, or the file not be written.
    """
    run = load(checkpoint)
    vocabulary = training_vocabulary(Dataset.open(data))
    state = openai_state(run.average, vocabulary, MINI.text.vocab_size)
    metadata = {"format": "pt", "layout": "openai", "module": "clip_mini", "steps": str(run.step)}
    try:
        with atomic_file(target) as temporary:
            write_safetensors(state, temporary, metadata)
    except OSError as error:
        raise TrainingError(f"cannot write {target}: {error.strerror or error}") from error


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.clip_mini.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--data", type=Path, default=DEFAULT_CACHE / "data")
    arguments = parser.parse_args()
    try:
        export(arguments.checkpoint, arguments.target, arguments.data)
    except TrainingError as error:
        raise SystemExit(f"recipes.clip_mini.export: {error}") from None


if __name__ == "__main__":
    main()
