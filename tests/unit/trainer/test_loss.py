"""The losses against numpy, and what workers do with the gradient of what they share."""

from __future__ import annotations

import math

import numpy as np
import paddle
import paddle.distributed as dist
import pytest

from clip_common.trainer import parallel
from clip_common.trainer.loss import bound_scale, contrastive_loss


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_the_contrastive_loss_is_the_mean_of_both_directions() -> None:
    """Of four pairs the last two have one caption, so each of them has two right answers."""
    rng = np.random.default_rng(0)
    image, text = (rng.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    positive = np.eye(4, dtype=bool)
    positive[2:, 2:] = True
    found = contrastive_loss(*map(paddle.to_tensor, (image, text, np.float32(math.log(7)), positive)))

    unit_image, unit_text = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (image, text))
    logits = 7 * unit_image @ unit_text.T
    target = positive / positive.sum(axis=1, keepdims=True)
    by_image, by_text = (-(target * log_softmax(some)).sum(axis=1).mean() for some in (logits, logits.T))
    assert abs(by_image - by_text) > 0.1  # so that one of them for both would show
    assert float(found) == pytest.approx((by_image + by_text) / 2, rel=1e-5)


@pytest.mark.parametrize(("before", "after"), [(3.0, 3.0), (5.0, math.log(100))])
def test_the_logit_scale_is_bounded_at_100(before: float, after: float) -> None:
    log_scale = paddle.to_tensor(before)
    bound_scale(log_scale)
    assert float(log_scale) == pytest.approx(after)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_worker_owes_its_part_of_the_gradient_of_what_all_see(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda: workers)
    parameter = paddle.to_tensor([2.0, 3.0], stop_gradient=False)
    seen = parallel.shared(parameter)
    assert seen.tolist() == [2, 3]
    (seen * paddle.to_tensor([8.0, 4.0])).sum().backward()
    assert parameter.grad.tolist() == [8 / workers, 4 / workers]
