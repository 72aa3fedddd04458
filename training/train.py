"""Contrastive training (paper section 2.3): `python -m training.train --steps 4000 --output RUN [--resume]`.

The batches are made in a thread of their own while the step before them runs.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor
from tqdm import tqdm

from clip_common import threads
from clip_common.config import MINI, ClipConfig, Preprocessing
from clip_common.model import CLIP
from clip_common.preprocess import normalize
from clip_common.tokenizer import lengths, tokenize

from . import checkpoint
from .augment import augment
from .captions import draw_caption, may_flip
from .checkpoint import Arrays, Checkpoint
from .data import DEFAULT_CACHE, Caption, Dataset
from .errors import TrainingError
from .init import initialise
from .splits import rows_of

MAX_TOKENS = 20
MAX_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True)
class Settings:
    """What fixes a run: the same settings and data give the same curve."""

    steps: int = 4000
    batch_size: int = 256
    learning_rate: float = 1.5e-3
    warm_up: int = 100
    weight_decay: float = 0.1
    average_decay: float = 0.998
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """What a step sees; pictures of one text are positives of each other."""

    pixels: np.ndarray  # float32 [N, 3, R, R]
    tokens: np.ndarray  # int64 [N, L]
    texts: np.ndarray  # int64 [N], equal where the captions are


class Batches:
    """The batches of a run, each from the seed and its step alone."""

    def __init__(self, data: Dataset, settings: Settings, resolution: int) -> None:
        self.data, self.settings, self.resolution = data, settings, resolution
        self.rows = rows_of(data.captions, "train")
        if len(self.rows) < settings.batch_size:
            raise TrainingError(
                f"{len(self.rows)} training pictures, fewer than a batch ({settings.batch_size})"
            )
        weights = np.array([sampling_weight(data.captions[row]) for row in self.rows])
        self.shares = weights / weights.sum()

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.settings.seed, step])
        rows = rng.choice(self.rows, self.settings.batch_size, replace=False, p=self.shares)
        pictures, texts = [], []
        for row in rows:
            caption = self.data.captions[row]
            pictures.append(augment(self.data.pictures[row], self.resolution, may_flip(caption.name), rng))
            texts.append(draw_caption(caption.name, caption.tags, rng))
        tokens = tokenize(texts, MAX_TOKENS, truncate=True)
        tokens = tokens[:, : max(lengths(tokens))]
        return Batch(
            normalize(np.stack(pictures), Preprocessing()), tokens, np.unique(texts, return_inverse=True)[1]
        )

    def stream(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps `first` to `last` - 1, the next one made while one is used."""
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self, first)
            for step in range(first, last):
                batch = coming.result()
                coming = pool.submit(self, min(step + 1, last - 1))
                yield batch


def sampling_weight(caption: Caption) -> float:
    """How often a picture is shown: flags and the many emoji of persons less than things."""
    if caption.concept.startswith("flag-"):
        return 0.1 * caption.weight
    if any(
        word in caption.name.split()
        for word in ("man", "woman", "men", "women", "person", "people", "family")
    ):
        return 0.35 * caption.weight
    return caption.weight


def contrastive_loss(image: Tensor, text: Tensor, log_scale: Tensor, texts: Tensor) -> Tensor:
    """The symmetric loss; each row's target is spread evenly over all that have its caption.

    Args:
        image: features [N, D], not normalised.
        text: features [N, D], not normalised.
        log_scale: the logarithm of what cosines are multiplied by.
        texts: [N], equal where the captions are.
    """
    image, text = F.normalize(image, axis=-1), F.normalize(text, axis=-1)
    logits = log_scale.exp() * paddle.matmul(image, text, transpose_y=True)  # N N
    same = (texts.unsqueeze(0) == texts.unsqueeze(1)).astype(logits.dtype)  # N N, symmetric
    target = same / same.sum(axis=1, keepdim=True)
    per_image = -(target * F.log_softmax(logits, axis=1)).sum(axis=1)
    per_text = -(target * F.log_softmax(logits.t(), axis=1)).sum(axis=1)
    return (per_image.mean() + per_text.mean()) / 2


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < settings.warm_up:
        return settings.learning_rate * (step + 1) / settings.warm_up
    progress = (step - settings.warm_up) / max(settings.steps - settings.warm_up, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


class Trainer:
    """A model with its optimizer and its average; `step` is all there is to training."""

    def __init__(self, config: ClipConfig, settings: Settings) -> None:
        self.settings = settings
        self.model = CLIP(config)
        initialise(self.model, settings.seed)
        self.model.train()
        decayed = {
            p.name for name, p in self.model.named_parameters() if p.ndim > 1 and "positional" not in name
        }
        self.optimizer = paddle.optimizer.AdamW(
            learning_rate=settings.learning_rate,
            beta2=0.98,
            epsilon=1e-6,
            parameters=self.model.parameters(),
            weight_decay=settings.weight_decay,
            apply_decay_param_fun=lambda name: name in decayed,
            grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0),
        )
        self.average: Arrays = checkpoint.model_arrays(self.model)
        self.done = 0

    def step(self, batch: Batch) -> float:
        """One step of the optimizer; returns its loss."""
        self.optimizer.set_lr(learning_rate(self.done, self.settings))
        image = self.model.encode_image(paddle.to_tensor(batch.pixels))
        text = self.model.encode_text(paddle.to_tensor(batch.tokens))
        loss = contrastive_loss(image, text, self.model.logit_scale, paddle.to_tensor(batch.texts))
        loss.backward()
        self.optimizer.step()
        self.optimizer.clear_grad()
        scale = self.model.logit_scale
        scale.set_value(scale.clip(max=MAX_LOGIT_SCALE))
        self.done += 1
        self._update_average()
        value = float(loss)
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value} at step {self.done}: lower --learning-rate")
        return value

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
            checkpoint.optimizer_arrays(self.model, self.optimizer),
            self.average,
            curve,
            asdict(self.settings),
        )

    def restore(self, run: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            TrainingError: it is of a run with other settings.
        """
        if run.settings != asdict(self.settings):
            raise TrainingError(f"the checkpoint is of a run with other settings: {run.settings}")
        for name, tensor in self.model.state_dict().items():
            tensor.set_value(run.model[name])
        checkpoint.restore_optimizer(self.model, self.optimizer, run.optimizer)
        self.average, self.done = run.average, run.step


def train(
    data: Dataset,
    config: ClipConfig,
    settings: Settings,
    output: Path,
    resume: bool = False,
    save_every: int = 100,
) -> Checkpoint:
    """Train, or go on, to the last step; `output` gets `checkpoint.npz` and `curves.png`.

    Raises:
        TrainingError: the data, the checkpoint or the disk is not as it must be.
    """
    path = output / "checkpoint.npz"
    trainer = Trainer(config, settings)
    curve: list[tuple[float, float]] = []
    if resume:
        run = checkpoint.load(path)
        trainer.restore(run)
        curve = [tuple(point) for point in run.curve]
    elif path.exists():
        raise TrainingError(f"{path} exists: go on with --resume, or choose another --output")
    batches = Batches(data, settings, config.image_resolution)
    with tqdm(total=settings.steps, initial=trainer.done, desc="train", unit="step", mininterval=5) as bar:
        for batch in batches.stream(trainer.done, settings.steps):
            start = time.perf_counter()
            loss = trainer.step(batch)
            curve.append((loss, settings.batch_size / (time.perf_counter() - start)))
            bar.set_postfix(
                loss=f"{np.mean([c[0] for c in curve[-20:]]):.3f}", pictures=f"{curve[-1][1]:.0f}/s"
            )
            bar.update()
            if trainer.done % save_every == 0 or trainer.done == settings.steps:
                checkpoint.save(path, trainer.snapshot(np.array(curve)))
                plot(np.array(curve), settings, output / "curves.png")
    return checkpoint.load(path)


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
    arguments = vars(parser.parse_args())
    threads.settle()
    settings = Settings(**{name: arguments[name] for name in asdict(Settings())})
    try:
        data = Dataset.open(arguments["data"])
        train(data, MINI, settings, arguments["output"], arguments["resume"], arguments["save_every"])
    except TrainingError as error:
        raise SystemExit(f"training.train: {error}") from None


if __name__ == "__main__":
    main()
