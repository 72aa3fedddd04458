"""The contrastive loss of CLIP (paper section 2.3), and the loss of choosing among classes."""

from __future__ import annotations

import math

import paddle
import paddle.nn.functional as F
from paddle import Tensor

_MAX_LOGIT_SCALE = math.log(100)


def bound_scale(log_scale: Tensor) -> None:
    """Keep the scale within the paper's bound, in place."""
    log_scale.set_value(log_scale.clip(max=_MAX_LOGIT_SCALE))


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


def class_loss(image: Tensor, classes: Tensor, scale: float, targets: Tensor) -> Tensor:
    """Cross entropy of the softmax that `classify` shows.

    Args:
        image: features [N, D], not normalised.
        classes: their embeddings [K, D].
        scale: what the products are multiplied by.
        targets: int64 [N], the right classes.
    """
    logits = scale * paddle.matmul(F.normalize(image, axis=-1), classes, transpose_y=True)  # N K
    return F.cross_entropy(logits, targets)
