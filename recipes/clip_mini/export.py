"""Exports a checkpoint (the averaged weights) and the image tower to a weights file for `clip_common`.

`python -m recipes.clip_mini.export RUN/checkpoint.npz clip_mini.safetensors --data DATA`
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from clip_common.config import MINI, ClipConfig
from clip_common.errors import ClipError, TrainingError
from clip_common.models.clip import CLIP
from clip_common.system.output import atomic_file
from clip_common.trainer.checkpoint import Arrays, load, model_arrays
from clip_common.weights.tensor_names import TOKEN_IDS, State, from_own
from clip_common.weights.weights_file import write_safetensors

from .bag_of_words import Parts, silent_rows, write_parts
from .data import DEFAULT_CACHE
from .features import Features
from .init import initialise
from .nouns import all_nouns
from .tower import read_tower
from .vocabulary import training_vocabulary

SEED = 0  # for the weights of the text tower that have no effect yet
# As in OpenAI's files, statistics, norms and the scale stay float32. The token embeddings, most of the file,
# are float16.
_FLOAT32 = re.compile(r"(^|\.)(bn_\w+|ln_\w+)\.|^(logit_scale|positional_embedding)$")


def openai_state(average: Arrays, tower: State, vocabulary: np.ndarray, config: ClipConfig = MINI) -> State:
    """Combine the trained weights and the image tower, with OpenAI's names, orientation and types.

    The token table has only the rows of the vocabulary, with their ids: other rows would be zero.
    """
    head = {f"visual.{name}": value for name, value in average.items() if name.startswith("head.")}
    text = _text_tower(average, vocabulary, config)
    state = {
        name: value.astype(np.float32 if _FLOAT32.search(name) else np.float16)
        for name, value in (tower | from_own(head | text)).items()
    }
    return state | {TOKEN_IDS: vocabulary.astype(np.int32)}


def _text_tower(average: Arrays, vocabulary: np.ndarray, config: ClipConfig) -> Arrays:
    """The weights of a text tower that computes the trained bags of words, by our layers' names."""
    tokens = average["text.tokens"].copy()
    tokens[silent_rows(vocabulary)] = 0
    clip = CLIP(replace(config, text=replace(config.text, vocab_size=len(vocabulary))))
    initialise(clip, SEED)
    write_parts(clip, Parts(average["text.components"], tokens), SEED)
    clip.logit_scale.set_value(average["logit_scale"])
    arrays = model_arrays(clip)
    return {name: value for name, value in arrays.items() if not name.startswith("visual.")}


def export(checkpoint: Path, target: Path, data: Path, downloads: Path) -> None:
    """Write the averaged weights of a checkpoint as safetensors.

    Raises:
        TrainingError: the checkpoint, the data or a package cannot be read, or the file cannot be written.
    """
    run = load(checkpoint)
    tower, space = read_tower(downloads)
    vocabulary = training_vocabulary(Features.open(data).captions, all_nouns(downloads, space).names)
    state = openai_state(run.average, tower, vocabulary)
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
    parser.add_argument("--downloads", type=Path, default=DEFAULT_CACHE / "downloads")
    arguments = parser.parse_args()
    try:
        export(arguments.checkpoint, arguments.target, arguments.data, arguments.downloads)
    except ClipError as error:
        raise SystemExit(f"recipes.clip_mini.export: {error}") from None


if __name__ == "__main__":
    main()
