"""The contrastive loss of CLIP (paper section 2.3), and the cross entropy over classes."""

from __future__ import annotations

import math

import paddle
import paddle.nn.functional as F
from paddle import Tensor

_MAX_LOGIT_SCALE = math.log(100)


def bound_scale(log_scale: Tensor) -> None:
    """Clip the logit scale to at most 100, in place, as in the paper."""
    log_scale.set_value(log_scale.clip(max=_MAX_LOGIT_SCALE))


def contrastive_loss(image: Tensor, text: Tensor, log_scale: Tensor, positive: Tensor) -> Tensor:
    """The symmetric contrastive loss; a row with several positives has a uniform target over them.

    Args:
        image: image features [N, D], not normalised.
        text: text features [N, D], not normalised.
        log_scale: logarithm of the logit scale.
        positive: which pairs belong together, bool [N, N], symmetric, true on the diagonal.
    """
    image, text = F.normalize(image, axis=-1), F.normalize(text, axis=-1)
    logits = log_scale.exp() * paddle.matmul(image, text, transpose_y=True)  # N N
    target = positive.astype(logits.dtype)
    target = target / target.sum(axis=1, keepdim=True)
    per_image = -(target * F.log_softmax(logits, axis=1)).sum(axis=1)
    per_text = -(target * F.log_softmax(logits.t(), axis=1)).sum(axis=1)
    return (per_image.mean() + per_text.mean()) / 2


def class_loss(image: Tensor, classes: Tensor, scale: float, targets: Tensor) -> Tensor:
    """Cross entropy of the softmax scores of `classify`.

    Args:
        image: image features [N, D], not normalised.
        classes: embeddings of the classes [K, D].
        scale: the logit scale.
        targets: the right classes, int64 [N].
    """
    logits = scale * paddle.matmul(F.normalize(image, axis=-1), classes, transpose_y=True)  # N K
    return F.cross_entropy(logits, targets)
