"""The formula of a cache of images, beside a plain one. Without a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clip_common.weights.class_head import CacheStrength
from clip_common.zero_shot import cached_labels
from clip_common.zero_shot.cached_labels import CachedLabels
from clip_common.zero_shot.scoring import (
    Scoring,
    cosines,
    l2_normalize,
    label_logits,
    label_scores,
    nearest_label,
    softmax,
    top_k_labels,
)

SCALE, ALPHA, BETA, TEMPERATURE = 25.0, 3.0, 5.5, 2.0
LABELS = ["a", "b", "c"]
COUNTS = (4, 1, 2)


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(600, 16)).astype(np.float32) * 7


@pytest.fixture
def targets() -> CachedLabels:
    rng = np.random.default_rng(0)
    embeddings = l2_normalize(rng.normal(size=(3, 16))).astype(np.float32)
    keys = tuple(l2_normalize(rng.normal(size=(count, 16))).astype(np.float32) for count in COUNTS)
    return CachedLabels(embeddings, keys, CacheStrength(ALPHA, BETA, TEMPERATURE))


def plain(features: np.ndarray, targets: CachedLabels) -> np.ndarray:
    """Tip-Adapter as the paper writes it (equations 3 to 5), and a temperature."""
    f = features.astype(np.float64)
    f = f / np.sqrt((f**2).sum(axis=1, keepdims=True))
    keys = np.concatenate(targets.keys).astype(np.float64)
    one_hot = np.eye(3)[np.repeat(np.arange(3), COUNTS)]
    affinity = np.exp(-BETA * (1 - f @ keys.T))
    return (SCALE * f @ targets.embeddings.T.astype(np.float64) + ALPHA * affinity @ one_hot) / TEMPERATURE


def test_logits_and_scores_are_the_papers(features: np.ndarray, targets: CachedLabels) -> None:
    expected = plain(features, targets)
    np.testing.assert_allclose(label_logits(features, targets, SCALE), expected, rtol=1e-5, atol=1e-5)
    scores = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(label_logits(features, targets, SCALE)), scores, atol=1e-5)
    np.testing.assert_allclose(label_scores(features[3], targets, SCALE), scores[3], atol=1e-5)
    (best, *_) = top_k_labels(features[3], targets, SCALE, LABELS, 3)
    assert best["label"] == LABELS[int(scores[3].argmax())]
    assert best["score"] == pytest.approx(scores[3].max(), abs=1e-5)


def test_without_weight_the_names_answer_alone(features: np.ndarray, targets: CachedLabels) -> None:
    alone = replace(targets, strength=CacheStrength(0.0, BETA))
    names = label_logits(features, targets.embeddings, SCALE)
    np.testing.assert_allclose(label_logits(features, alone, SCALE), names, atol=1e-12)


def test_a_cosine_is_that_with_the_nearest_image(features: np.ndarray, targets: CachedLabels) -> None:
    unit = l2_normalize(features)
    expected = np.stack([(unit @ keys.T).max(axis=1) for keys in targets.keys], axis=1)
    found = cosines(features, targets)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    itself = targets.keys[1][0]
    assert cosines(itself[None] * 3, targets)[0, 1] == pytest.approx(1) and found.max() <= 1
    scoring = Scoring("cosine", np.array([0.999, 0.999, 0.999]))
    assert [item["label"] for item in top_k_labels(itself, targets, SCALE, LABELS, 3, scoring)] == ["b"]
    none = Scoring("cosine", np.full(3, 1.0))
    assert top_k_labels(features[0], targets, SCALE, LABELS, 3, none) == []
    assert nearest_label(features[0], targets, SCALE, LABELS, none)["score"] == pytest.approx(found[0].max())


def test_what_is_in_memory_does_not_grow_with_the_images(
    features: np.ndarray, targets: CachedLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = label_logits(features, targets, SCALE), cosines(features, targets)
    monkeypatch.setattr(cached_labels, "_IMAGES_AT_ONCE", 7)
    in_parts = label_logits(features, targets, SCALE), cosines(features, targets)
    for one, other in zip(whole, in_parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
