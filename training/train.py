"""Contrastive training (paper section 2.3): `python -m training.train --output RUN [--resume]`.

Processes share each batch; each makes its part of the next one in a thread while a step runs.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import paddle
import paddle.distributed as dist
import paddle.nn.functional as F
from paddle import Tensor
from tqdm import tqdm

from clip_common.config import MINI, ClipConfig
from clip_common.model import CLIP
from clip_common.tokenizer import lengths

from . import checkpoint, parallel
from .batches import Batch, Batches, Settings
from .checkpoint import Arrays, Checkpoint
from .data import DEFAULT_CACHE, Dataset
from .errors import TrainingError
from .init import initialise
from .muon import Muon
from .vocabulary import rows_in, training_vocabulary

MAX_LOGIT_SCALE = math.log(100)
TEXT_GROUPS = 3  # by length, each padded to its own longest


def contrastive_loss(image: Tensor, text: Tensor, log_scale: Tensor, positive: Tensor) -> Tensor:
    """The symmetric loss; each row's target is spread evenly over all of its positives.

    Args:
        image: features [N, D], not normalised.
        text: features [N, D], not normalised.
        log_scale: the logarithm of what cosines are multiplied by.
        positive: bool [N, N], symmetric, true on the diagonal.
    """
    image, text = F.normalize(image, axis=-1), F.normalize(text, axis=-1)
    logits = log_scale.exp() * paddle.matmul(image, text, transpose_y=True)  # N N
    target = positive.astype(logits.dtype)
    target = target / target.sum(axis=1, keepdim=True)
    per_image = -(target * F.log_softmax(logits, axis=1)).sum(axis=1)
    per_text = -(target * F.log_softmax(logits.t(), axis=1)).sum(axis=1)
    return (per_image.mean() + per_text.mean()) / 2


def positives(batch: Batch) -> np.ndarray:
    """Which pairs of a batch mean the same, bool [N, N]: an equal subject, or an equal concept."""
    subjects, concepts = batch.subjects, batch.concepts
    return (subjects[:, None] == subjects) | (concepts[:, None] == concepts)


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < settings.warm_up:
        return settings.learning_rate * (step + 1) / settings.warm_up
    progress = (step - settings.warm_up) / max(settings.steps - settings.warm_up, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


class Trainer:
    """A model with its optimizer and its average; `step` is all there is to training."""

    def __init__(self, config: ClipConfig, settings: Settings, vocabulary: np.ndarray) -> None:
        self.settings, self.vocabulary = settings, vocabulary
        self.model = CLIP(replace(config, text=replace(config.text, vocab_size=len(vocabulary))))
        initialise(self.model, settings.seed)
        self.model.train()
        decayed = {
            p.name for name, p in self.model.named_parameters() if p.ndim > 1 and "positional" not in name
        }
        trained = {name: p for name, p in self.model.named_parameters() if not p.stop_gradient}
        self.parameters = list(trained.values())
        matrices = {name: p for name, p in trained.items() if _is_hidden_matrix(name, p)}
        self.muon = Muon(matrices, settings.weight_decay)
        self.others = {name: p for name, p in trained.items() if name not in matrices}
        self.adam = paddle.optimizer.AdamW(
            learning_rate=settings.learning_rate,
            beta2=0.98,
            epsilon=1e-6,
            parameters=list(self.others.values()),
            weight_decay=settings.weight_decay,
            apply_decay_param_fun=lambda name: name in decayed,
            grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0),
        )
        self.average: Arrays = checkpoint.model_arrays(self.model)
        self.done = 0

    def step(self, batch: Batch) -> float:
        """One step of the optimizer on this worker's part of a batch; returns the whole batch's loss."""
        rate = learning_rate(self.done, self.settings)
        self.adam.set_lr(rate)
        image = parallel.gather(self._encode_image(paddle.to_tensor(batch.pixels)))
        text = parallel.gather(self._encode_text(batch.tokens))
        scale = self.model.logit_scale
        loss = contrastive_loss(image, text, parallel.shared(scale), paddle.to_tensor(positives(batch)))
        loss.backward()
        parallel.sum_gradients(self.parameters)
        self.muon.step(rate)
        self.adam.step()
        for parameter in self.parameters:
            parameter.clear_gradient(set_to_zero=False)
        scale.set_value(scale.clip(max=MAX_LOGIT_SCALE))
        self.done += 1
        self._update_average()
        value = float(loss)
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value} at step {self.done}: lower --learning-rate")
        return value

    def _encode_image(self, pixels: Tensor) -> Tensor:
        """Features of pictures of the model's size, or of half of it."""
        visual = self.model.visual
        grid = visual.grid(pixels)  # N C h h
        pool, cells = visual.attnpool, grid.shape[-1]
        side = self.model.config.image_resolution // 32
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
            self.model.encode_text(paddle.to_tensor(rows[group, : length[group].max()]))
            for group in np.array_split(order, TEXT_GROUPS)
        ]
        return paddle.concat(parts).index_select(paddle.to_tensor(np.argsort(order)))

    def _update_average(self) -> None:
        """Exponential average of weights and BatchNorm statistics, quicker at the beginning."""
        decay = min(self.settings.average_decay, (1 + self.done) / (10 + self.done))
        for name, tensor in self.model.state_dict().items():
            average = self.average[name]
            average += (tensor.numpy() - average) * np.float32(1 - decay)

    def snapshot(self, curve: np.ndarray) -> Checkpoint:
        """The state of the run."""
        return Checkpoint(
            self.done,
            checkpoint.model_arrays(self.model),
            checkpoint.adam_arrays(self.others, self.adam) | self.muon.arrays(),
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
        for name, tensor in self.model.state_dict().items():
            tensor.set_value(run.model[name])
        checkpoint.restore_adam(self.others, self.adam, run.optimizer)
        self.muon.restore(run.optimizer)
        self.average, self.done = run.average, run.step


def _is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon trains it; in the attention pool its step would cost too much."""
    if parameter.ndim == 4:
        return True
    return parameter.ndim == 2 and "embedding" not in name and "attnpool" not in name


def train(
    data: Dataset,
    config: ClipConfig,
    settings: Settings,
    output: Path,
    resume: bool = False,
    save_every: int = 100,
) -> None:
    """Train, or go on, to the last step, as one of the run's workers.

    The first worker writes `checkpoint.npz` and `curves.png` into `output`.

    Raises:
        TrainingError: the data, the checkpoint or the disk is not as it must be.
    """
    path = output / "checkpoint.npz"
    trainer = Trainer(config, settings, training_vocabulary(data))
    batches = Batches(data, settings, config.image_resolution, dist.get_rank())
    first = dist.get_rank() == 0
    curve: list[tuple[float, float]] = []
    if resume:
        run = checkpoint.load(path)
        trainer.restore(run)
        curve = [tuple(point) for point in run.curve]
    with tqdm(
        total=settings.steps,
        initial=trainer.done,
        desc="train",
        unit="step",
        mininterval=5,
        disable=not first,
    ) as bar:
        for batch in batches.stream(trainer.done, settings.steps):
            start = time.perf_counter()
            loss = trainer.step(batch)
            curve.append((loss, settings.batch_size / (time.perf_counter() - start)))
            bar.set_postfix(
                loss=f"{np.mean([c[0] for c in curve[-20:]]):.3f}", pictures=f"{curve[-1][1]:.0f}/s"
            )
            bar.update()
            if first and (trainer.done % save_every == 0 or trainer.done == settings.steps):
                checkpoint.save(path, trainer.snapshot(np.array(curve)))
                plot(np.array(curve), settings, output / "curves.png")


def check(data: Path, settings: Settings, output: Path, resume: bool) -> None:
    """Find what would stop a run before its workers start.

    Raises:
        TrainingError: the data or the checkpoint is not as it must be, or one is there that is not wanted.
    """
    Batches(Dataset.open(data), settings, MINI.image_resolution)
    path = output / "checkpoint.npz"
    if resume:
        checkpoint.load(path).require(settings)
    elif path.exists():
        raise TrainingError(f"{path} exists: go on with --resume, or choose another --output")


def _work(arguments: argparse.Namespace, settings: Settings) -> None:
    """A worker's life."""
    parallel.settle(settings.workers)
    data = Dataset.open(arguments.data)
    train(data, MINI, settings, arguments.output, arguments.resume, arguments.save_every)


def plot(curve: np.ndarray, settings: Settings, path: Path) -> None:
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
    bottom.set(ylabel="pictures a second", xlabel="step")
    figure.savefig(path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_CACHE / "data", help="a folder of training.data")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments = parser.parse_args()
    settings = Settings(**{name: getattr(arguments, name) for name in asdict(Settings())})
    try:
        check(arguments.data, settings, arguments.output, arguments.resume)
        parallel.start(_work, (arguments, settings), settings.workers)
    except TrainingError as error:
        raise SystemExit(f"training.train: {error}") from None


if __name__ == "__main__":
    main()
