from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clip_common.text.prompts import Prompts
from clip_common.zero_shot import label_embeddings
from clip_common.zero_shot.label_embeddings import LabelEmbeddings, compute_label_embeddings

FEATURES = {
    "a dog": [3.0, 0.0],
    "the dog": [0.0, 0.5],
    "a cat": [0.0, 2.0],
    "the cat": [0.0, 7.0],
}
PROMPTS = Prompts(("dog", "cat"), ("a {}", "the {}"))
DIAGONAL = float(np.sqrt(0.5))


def encode(texts: Sequence[str]) -> np.ndarray:
    return np.array([FEATURES[text] for text in texts], np.float32)


@pytest.mark.parametrize("at_once", [1, 2, 4096])
def test_a_label_is_the_mean_of_its_templates_each_of_unit_length_as_is_the_mean(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The templates point in two directions here; to clip_mini, templates hardly differ."""
    monkeypatch.setattr(label_embeddings, "TEXTS_AT_ONCE", at_once)
    steps: list[tuple[int, int]] = []
    found = compute_label_embeddings(PROMPTS, encode, lambda done, total: steps.append((done, total)))
    np.testing.assert_allclose(found, [[DIAGONAL, DIAGONAL], [0.0, 1.0]], rtol=1e-6)
    assert found.dtype == np.float32
    assert steps == ([(2, 2)] if at_once > 2 else [(1, 2), (2, 2)])


def test_what_is_kept_is_found_by_the_same_weights_and_prompts_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path))
    made = LabelEmbeddings("a hash", 2).of(PROMPTS, encode)
    np.testing.assert_array_equal(LabelEmbeddings("a hash", 2).find(PROMPTS), made)
    assert LabelEmbeddings("another hash", 2).find(PROMPTS) is None
    assert LabelEmbeddings("a hash", 2, "bfloat16").find(PROMPTS) is None
    assert LabelEmbeddings("a hash", 2).find(Prompts(PROMPTS.labels, ("a {}",))) is None
    assert LabelEmbeddings("a hash", 2).find(Prompts(PROMPTS.labels[::-1], PROMPTS.templates)) is None
