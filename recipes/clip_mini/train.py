"""Contrastive training (paper section 2.3): `python -m recipes.clip_mini.train --output RUN [--resume]`.

Processes share each batch; each makes its part of the next one in a thread while a step runs.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
import paddle.nn.functional as F
from paddle import Tensor

from clip_common.config import MINI, PRETRAINED, ClipConfig
from clip_common.errors import TrainingError, WeightsError
from clip_common.models.clip import CLIP
from clip_common.models.factory import load_model
from clip_common.text.tokenizer import lengths
from clip_common.trainer import checkpoint, parallel, run
from clip_common.trainer.loss import bound_scale, contrastive_loss
from clip_common.trainer.trainer import Trainer
from clip_common.weights.locate import find

from .batches import Batch, Batches, Settings
from .data import DEFAULT_CACHE, Dataset
from .init import initialise
from .vocabulary import rows_in, training_vocabulary

TEXT_GROUPS = 3  # by length, each padded to its own longest


def positives(batch: Batch) -> np.ndarray:
    """Which pairs of a batch mean the same, bool [N, N]: an equal subject, or an equal concept."""
    subjects, concepts = batch.subjects, batch.concepts
    return (subjects[:, None] == subjects) | (concepts[:, None] == concepts)


class MiniTrainer(Trainer):
    """Trains clip_mini from nothing, holding only the tokens of `vocabulary`."""

    def __init__(self, config: ClipConfig, settings: Settings, vocabulary: np.ndarray) -> None:
        self.clip = CLIP(replace(config, text=replace(config.text, vocab_size=len(vocabulary))))
        initialise(self.clip, settings.seed)
        self.clip.train()
        self.config, self.vocabulary = config, vocabulary
        trained = {name: p for name, p in self.clip.named_parameters() if not p.stop_gradient}
        super().__init__(self.clip, settings, [n for n, p in trained.items() if _is_hidden_matrix(n, p)])

    def begin_with_file(self, weights: Path) -> None:
        """Take a weights file, as `recipes.clip_mini.export` writes, as the run's beginning.

        Tokens that its training did not see keep their rows drawn at random.

        Raises:
            TrainingError: it cannot be read, or is of another model.
        """
        try:
            record = replace(PRETRAINED["clip_mini"], config=self.config)
            whole = load_model(replace(find(PRETRAINED["clip_mini"], weights), record=record))
        except WeightsError as error:
            raise TrainingError(f"--begin-with: {error}") from error
        arrays = checkpoint.model_arrays(whole)
        rows = arrays["token_embedding.weight"][self.vocabulary]
        own = self.clip.token_embedding.weight.numpy()
        arrays["token_embedding.weight"] = np.where(rows.any(axis=1, keepdims=True), rows, own)
        self.begin_with(arrays)

    def loss(self, batch: Batch) -> Tensor:
        """The contrastive loss of the whole batch."""
        image = parallel.gather(self._encode_image(paddle.to_tensor(batch.pixels)))
        text = parallel.gather(self._encode_text(batch.tokens))
        scale = parallel.shared(self.clip.logit_scale)
        return contrastive_loss(image, text, scale, paddle.to_tensor(positives(batch)))

    def after_step(self) -> None:
        """The scale stays within the paper's bound."""
        bound_scale(self.clip.logit_scale)

    def _encode_image(self, pixels: Tensor) -> Tensor:
        """Features of images of the model's size, or of half of it."""
        visual = self.clip.visual
        grid = visual.grid(pixels)  # N C h h
        pool, cells = visual.attnpool, grid.shape[-1]
        side = self.clip.config.image_resolution // 32
        if cells == side:
            return pool(grid)
        # A cell stands where several of the whole grid do, and gets the mean of their positions.
        whole = pool.positional_embedding[1:].t().reshape([1, -1, side, side])  # hh C -> 1 C h h
        mean = F.adaptive_avg_pool2d(whole, cells).flatten(2).squeeze(0).t()  # 1 C h h -> hh C
        return pool(grid, paddle.concat([pool.positional_embedding[:1], mean]))

    def _encode_text(self, tokens: np.ndarray) -> Tensor:
        """Features of texts [N, L], in groups of like length, each padded to its longest only."""
        rows = rows_in(self.vocabulary, tokens)
        length = np.asarray(lengths(tokens))
        order = np.argsort(length, kind="stable")
        parts = [
            self.clip.encode_text(paddle.to_tensor(rows[group, : length[group].max()]))
            for group in np.array_split(order, TEXT_GROUPS)
        ]
        return paddle.concat(parts).index_select(paddle.to_tensor(np.argsort(order)))


def _is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon trains it; in the attention pool its step would cost too much."""
    if parameter.ndim == 4:
        return True
    return parameter.ndim == 2 and "embedding" not in name and "attnpool" not in name


def train(
    data: Dataset,
    settings: Settings,
    output: Path,
    config: ClipConfig = MINI,
    begin_with: Path | None = None,
    **options: Any,
) -> None:
    """Train, or go on, as one of the run's workers.

    Args:
        begin_with: a weights file, the run's beginning; None for weights at random.
        options: those of `trainer.run.train`.

    Raises:
        TrainingError: as `trainer.run.train` does, or `begin_with` is of another model.
    """
    trainer = MiniTrainer(config, settings, training_vocabulary(data))
    if begin_with:
        trainer.begin_with_file(begin_with)
    batches = Batches(data, settings, config.image_resolution, dist.get_rank())
    run.train(trainer, batches, output, **options)


def check(data: Path, settings: Settings, output: Path, resume: bool, begin_with: Path | None = None) -> None:
    """Find what would stop a run before its workers start.

    Raises:
        TrainingError: the data or a checkpoint is not as it must be, or one is there that is not wanted.
    """
    if begin_with and not resume and not begin_with.is_file():
        raise TrainingError(f"--begin-with {begin_with}: no such file")
    Batches(Dataset.open(data), settings, MINI.image_resolution)
    if begun := run.begun(output, resume):
        begun.require(settings)


def _work(arguments: argparse.Namespace, settings: Settings) -> None:
    """A worker's life."""
    parallel.configure(settings.workers)
    data = Dataset.open(arguments.data)
    # What a run began with is in its own checkpoint.
    begin_with = None if arguments.resume else arguments.begin_with
    options = {"resume": arguments.resume, "save_every": arguments.save_every}
    train(data, settings, arguments.output, begin_with=begin_with, **options)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.clip_mini.train", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_CACHE / "data", help="a folder of recipes.clip_mini.data"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")
    parser.add_argument(
        "--begin-with", type=Path, help="a weights file, as recipes.clip_mini.export writes it"
    )
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments = parser.parse_args()
    settings = Settings(**{name: getattr(arguments, name) for name in asdict(Settings())})
    try:
        check(arguments.data, settings, arguments.output, arguments.resume, arguments.begin_with)
        parallel.start(_work, (arguments, settings), settings.workers)
    except TrainingError as error:
        raise SystemExit(f"recipes.clip_mini.train: {error}") from None


if __name__ == "__main__":
    main()
