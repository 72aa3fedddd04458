"""Trains the text model and a branch of the image head: `python -m recipes.clip_mini.train --output RUN`.

Texts are bags of words with fitted initial values (`bag_of_words.py`); the branch is for drawings. The loss
is a sum of three: a contrastive loss of drawings and captions (paper section 2.3); nouns should reach their
directions in the classifier's space; and on photographs the head should give the classifier's probabilities.
The image tower keeps its ImageNet weights.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from clip_common.config import MINI, EfficientNetConfig
from clip_common.errors import ClipError
from clip_common.models.efficientnet import Head
from clip_common.text.tokenizer import lengths
from clip_common.trainer import parallel, run
from clip_common.trainer.loss import bound_scale, contrastive_loss
from clip_common.trainer.trainer import Trainer

from .bag_of_words import BagOfWords, Parts, fit_parts, silent_rows
from .batches import Batch, Batches, Settings
from .data import DEFAULT_CACHE
from .features import Features
from .imagenet import Space
from .nouns import all_nouns
from .subjects import subjects_of
from .tower import read_tower
from .vocabulary import rows_in, training_vocabulary

NOUN_WEIGHT, PHOTOGRAPH_WEIGHT = 12.0, 1.0
CLASS_SCALE = 18.0  # factor for cosines with which initial probabilities are nearest to the classifier's
FIRST_SCALE = 20.0  # initial scale of the contrastive loss


def positives(batch: Batch) -> np.ndarray:
    """Which pairs of drawings of a batch are positives, bool [B, B]: equal subjects or equal concepts."""
    subjects, concepts = batch.subjects, batch.concepts
    return (subjects[:, None] == subjects) | (concepts[:, None] == concepts)


class MiniTrainer(Trainer):
    """Trains the branch of the image head and the bags of words.

    Args:
        settings: settings of the run.
        vocabulary: token ids that may occur in texts, int64 [V].
        space: the classifier's space.
        parts: initial parts of the bags of words.
        branch: width of the branch.
    """

    def __init__(
        self, settings: Settings, vocabulary: np.ndarray, space: Space, parts: Parts, branch: int
    ) -> None:
        features, embed_dim = space.projection.shape
        model = nn.Layer()
        model.head = Head(features, branch, embed_dim)
        random = np.random.default_rng(settings.seed)
        model.head.projection.set_value(space.projection)
        model.head.projection.stop_gradient = True
        model.head.c_fc.weight.set_value(
            random.normal(0, features**-0.5, (features, branch)).astype(np.float32)
        )
        model.head.c_proj.weight.set_value(np.zeros((branch, embed_dim), np.float32))  # no effect at first
        model.text = BagOfWords(parts, silent_rows(vocabulary), settings.seed)
        model.logit_scale = model.create_parameter(
            [], default_initializer=nn.initializer.Constant(math.log(FIRST_SCALE))
        )
        self.vocabulary = vocabulary
        self.classes = paddle.to_tensor(space.directions)
        self.parts: dict[str, float] = {}
        super().__init__(model, settings)

    def loss(self, batch: Batch) -> Tensor:
        """The sum of the three losses."""
        count, scale = len(batch.drawings), self.model.logit_scale
        images = self.model.head(paddle.to_tensor(np.concatenate([batch.drawings, batch.photographs])))
        texts = self.encode_text(batch.tokens)
        drawings = contrastive_loss(images[:count], texts[:count], scale, paddle.to_tensor(positives(batch)))
        cosines = (F.normalize(texts[count:], axis=-1) * paddle.to_tensor(batch.directions)).sum(axis=1)
        nouns = F.relu(paddle.to_tensor(batch.closeness) - cosines).mean()
        logits = CLASS_SCALE * paddle.matmul(
            F.normalize(images[count:], axis=-1), self.classes, transpose_y=True
        )
        given = paddle.to_tensor(batch.classes)
        photographs = (given * ((given + 1e-9).log() - F.log_softmax(logits, axis=1))).sum(axis=1).mean()
        self.parts = {"drawings": float(drawings), "nouns": float(nouns), "photographs": float(photographs)}
        return drawings + NOUN_WEIGHT * nouns + PHOTOGRAPH_WEIGHT * photographs

    def after_step(self) -> None:
        """Limit the scale as in the paper."""
        bound_scale(self.model.logit_scale)

    def encode_text(self, tokens: np.ndarray) -> Tensor:
        """Token ids [N, L] to features [N, D]."""
        longest = int(lengths(tokens).max())
        return self.model.text(rows_in(self.vocabulary, tokens[:, :longest]))


def train(
    data: Path, downloads: Path, settings: Settings, output: Path, resume: bool, save_every: int
) -> None:
    """Train, or resume training.

    Args:
        data: a folder written by `recipes.clip_mini.data`, with features.
        downloads: the folder of the packages.
        resume, save_every: see `trainer.run.train`.

    Raises:
        TrainingError: see `trainer.run.train`; or a package cannot be downloaded.
    """
    space = read_tower(downloads)[1]
    nouns = all_nouns(downloads, space)
    features = Features.open(data)
    vocabulary = training_vocabulary(features.captions, nouns.names)
    parts = fit_parts(nouns, subjects_of(features, space), vocabulary, MINI.text.width - 2)
    assert isinstance(MINI.vision, EfficientNetConfig)
    trainer = MiniTrainer(settings, vocabulary, space, parts, MINI.vision.branch)
    run.train(trainer, Batches(features, nouns, space, settings), output, resume, save_every)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.clip_mini.train", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_CACHE / "data", help="a folder with features")
    parser.add_argument("--downloads", type=Path, default=DEFAULT_CACHE / "downloads")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments = parser.parse_args()
    settings = Settings(**{name: getattr(arguments, name) for name in asdict(Settings())})
    try:
        with run.begun(arguments.output, arguments.resume) as begun:
            if begun:
                begun.require(settings)
            parallel.configure(settings.workers)
            folders = (arguments.data, arguments.downloads)
            train(*folders, settings, arguments.output, arguments.resume, arguments.save_every)
    except ClipError as error:
        raise SystemExit(f"recipes.clip_mini.train: {error}") from None


if __name__ == "__main__":
    main()
