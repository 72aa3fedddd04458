"""Trainers: the image tower with one embedding per class, or both towers on captions.

With a locked image tower, the tower is removed from the model, and training uses its precomputed features.

BatchNorm keeps its statistics (eval mode): batches are small, and interpolation with the weights before
requires the same statistics.
"""

from __future__ import annotations

import contextlib

import numpy as np
import paddle
from paddle import Tensor, nn

from ..models.clip import CLIP
from ..trainer import parallel
from ..trainer.loss import bound_scale, class_loss, contrastive_loss
from ..trainer.settings import RunSettings
from ..trainer.trainer import Trainer
from .batches import AdaptationBatch


class Classifier(nn.Layer):
    """The trainable part of a classifier: the image tower, unless it is locked, and one embedding per class.

    Args:
        clip: the model with the image tower.
        embeddings: initial embeddings of the classes, float32 [classes, d].
    """

    def __init__(self, clip: CLIP, embeddings: np.ndarray) -> None:
        super().__init__()
        if hasattr(clip, "visual"):
            self.visual = clip.visual
        self.classes = self.create_parameter(list(embeddings.shape))
        self.classes.set_value(embeddings)


class ClassTrainer(Trainer):
    """Trains the class embeddings, and the image tower unless it is locked; the text tower stays fixed."""

    def __init__(self, clip: CLIP, embeddings: np.ndarray, settings: RunSettings, bfloat16: bool) -> None:
        self.classifier = Classifier(clip, embeddings)
        self.classifier.eval()
        self.scale = float(clip.logit_scale.exp())
        self.bfloat16 = bfloat16
        super().__init__(self.classifier, settings)

    def loss(self, batch: AdaptationBatch) -> Tensor:
        """Cross entropy among the classes."""
        image = paddle.to_tensor(batch.images)
        if hasattr(self.classifier, "visual"):
            with _autocast(self.bfloat16):
                image = self.classifier.visual(image)
        image = parallel.gather(image.astype("float32"))
        classes = parallel.shared(self.classifier.classes)
        return class_loss(image, classes, self.scale, paddle.to_tensor(batch.targets))


class CaptionTrainer(Trainer):
    """Trains both towers on images and captions; only the text tower if the image tower is locked.

    Args:
        tokens: token ids of all captions, int64 [captions, L].
    """

    def __init__(self, clip: CLIP, tokens: np.ndarray, settings: RunSettings, bfloat16: bool) -> None:
        self.clip, self.tokens, self.bfloat16 = clip, tokens, bfloat16
        clip.eval()
        super().__init__(clip, settings)

    def loss(self, batch: AdaptationBatch) -> Tensor:
        """The contrastive loss; images with the same caption are positives of each other."""
        rows = batch.targets[list(batch.part)]
        tokens = self.tokens[rows]
        tokens = tokens[:, : np.flatnonzero(tokens.any(axis=0))[-1] + 1]  # zeros follow the end token
        image = paddle.to_tensor(batch.images)
        with _autocast(self.bfloat16):
            if hasattr(self.clip, "visual"):
                image = self.clip.encode_image(image)
            text = self.clip.encode_text(paddle.to_tensor(tokens))
        image, text = (parallel.gather(features.astype("float32")) for features in (image, text))
        positive = batch.targets[:, None] == batch.targets
        scale = parallel.shared(self.clip.logit_scale)
        return contrastive_loss(image, text, scale, paddle.to_tensor(positive))

    def after_step(self) -> None:
        """Clip the logit scale, as in the paper."""
        bound_scale(self.clip.logit_scale)


def _autocast(bfloat16: bool) -> contextlib.AbstractContextManager:
    return paddle.amp.auto_cast(dtype="bfloat16") if bfloat16 else contextlib.nullcontext()
