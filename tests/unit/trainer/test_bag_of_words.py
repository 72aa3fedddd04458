"""Bags of words: where they begin, and the text tower that computes them."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from clip_common.config import ClipConfig, EfficientNetConfig, Stage, TextConfig
from clip_common.models.clip import CLIP
from clip_common.text.tokenizer import tokenize
from clip_common.zero_shot.scoring import l2_normalize
from recipes.clip_mini.bag_of_words import BagOfWords, Parts, fit_parts, fit_sums, silent_rows, write_parts
from recipes.clip_mini.init import initialise
from recipes.clip_mini.nouns import PARTLY, WHOLLY, Nouns
from recipes.clip_mini.subjects import Subjects
from recipes.clip_mini.vocabulary import rows_in, tokens_of

NAMES = ["cat", "dog", "tabby cat", "maltese dog", "giraffe"]
SIZE = 12  # of the space


@pytest.fixture(scope="module")
def nouns() -> Nouns:
    directions = l2_normalize(np.random.default_rng(1).normal(size=(5, SIZE))).astype(np.float32)
    closeness = np.array([WHOLLY] * 4 + [PARTLY], np.float32)
    return Nouns(NAMES, directions, closeness, np.array([6.0, 6, 1, 1, 4]))


@pytest.fixture(scope="module")
def subjects() -> Subjects:
    directions = l2_normalize(np.random.default_rng(2).normal(size=(2, SIZE))).astype(np.float32)
    return Subjects(["dog", "arrow"], directions, np.array([2.0, 2.0]))


@pytest.fixture(scope="module")
def vocabulary() -> np.ndarray:
    return tokens_of([], [*NAMES, "arrow"])


@pytest.fixture(scope="module")
def parts(nouns: Nouns, subjects: Subjects, vocabulary: np.ndarray) -> Parts:
    return fit_parts(nouns, subjects, vocabulary, SIZE)


@pytest.fixture
def clip(vocabulary: np.ndarray) -> CLIP:
    tower = EfficientNetConfig((Stage(1, 3, 2, 2, 8),), branch=12, stem=4, features=20)
    clip = CLIP(ClipConfig("tiny", SIZE, 64, tower, TextConfig(64, 2, vocab_size=len(vocabulary))))
    initialise(clip, 0)
    clip.eval()
    return clip


def encode(clip: CLIP, vocabulary: np.ndarray, texts: list[str]) -> np.ndarray:
    with paddle.no_grad():
        return l2_normalize(clip.encode_text(paddle.to_tensor(rows_in(vocabulary, tokenize(texts)))).numpy())


def bags(parts: Parts, vocabulary: np.ndarray, texts: list[str]) -> np.ndarray:
    with paddle.no_grad():
        bag = BagOfWords(parts, silent_rows(vocabulary), 0)
        return l2_normalize(bag(rows_in(vocabulary, tokenize(texts))).numpy())


def test_vectors_whose_sums_are_nearest() -> None:
    rows = np.array([[0, 3], [1, 3], [0, 1], [3, 3]])  # 3 is none
    exact = np.array([[1, 0, 2], [0, 4, 1], [0, 0, 0]], np.float32)
    targets = np.array([exact[0], exact[1], exact[0] + exact[1], [9, 9, 9]], np.float32)
    found = fit_sums(rows, targets, np.ones(4, np.float32), 3)
    np.testing.assert_allclose(found, exact, atol=0.1)  # a little shorter, by the ridge
    targets[2] += 1  # of those that disagree the heavier is followed
    heavy = fit_sums(rows, targets, np.array([1, 1, 1000, 1], np.float32), 3)
    np.testing.assert_allclose(heavy[0] + heavy[1], targets[2], atol=0.02)


def test_texts_begin_where_they_should_lie(
    parts: Parts, nouns: Nouns, subjects: Subjects, vocabulary: np.ndarray
) -> None:
    least = parts.components[:, -1]
    found = bags(parts, vocabulary, [*NAMES, "arrow", "cats"])
    cosines = (found[:4] * nouns.directions[:4]).sum(axis=1)
    assert (cosines > 0.96 * np.sqrt(1 - (nouns.directions[:4] @ least) ** 2)).all()
    giraffe = found[4] - (found[4] @ least) * least  # lies elsewhere in part, on the last component
    seen = nouns.directions[4] - (nouns.directions[4] @ least) * least
    assert np.linalg.norm(giraffe) == pytest.approx(PARTLY, abs=0.02)
    assert giraffe @ seen / np.linalg.norm(giraffe) / np.linalg.norm(seen) > 0.99
    assert found[5] @ subjects.directions[1] > 0.96 * np.sqrt(1 - (subjects.directions[1] @ least) ** 2)
    assert found[6] @ found[0] > 0.99  # the plural


def test_the_tower_computes_the_bags(parts: Parts, clip: CLIP, vocabulary: np.ndarray) -> None:
    write_parts(clip, parts, 0)
    texts = [*NAMES, "arrow", "tabby dog", "maltese cat giraffe", "giraffe cat maltese"]
    assert ((encode(clip, vocabulary, texts) * bags(parts, vocabulary, texts)).sum(axis=1) > 0.995).all()


def test_templates_say_nothing(parts: Parts, clip: CLIP, vocabulary: np.ndarray) -> None:
    write_parts(clip, parts, 0)
    texts = ["tabby cat", "a photo of a tabby cat.", "an icon of a tabby cat"]
    for found in (encode(clip, vocabulary, texts), bags(parts, vocabulary, texts)):
        assert (found[1:] @ found[0] > 0.999).all()


def test_a_part_of_any_length_is_kept_within_the_norm(clip: CLIP, vocabulary: np.ndarray) -> None:
    long = np.zeros((len(vocabulary), SIZE), np.float32)
    long[:, 0] = 1000
    write_parts(clip, Parts(np.eye(SIZE, dtype=np.float32), long), 0)
    assert np.isfinite(clip.token_embedding.weight.numpy()).all()


def test_tokens_that_nothing_tells_of_begin_somewhere(parts: Parts, vocabulary: np.ndarray) -> None:
    """A text of none but such would have no direction to learn from."""
    empty = Parts(parts.components, np.zeros_like(parts.tokens))
    assert np.linalg.norm(bags(empty, vocabulary, ["giraffe"])) == pytest.approx(1, abs=1e-5)
