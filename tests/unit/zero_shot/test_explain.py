"""Heat maps: where an image has what speaks for a label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import clip_common
from clip_common.errors import ImageError, LabelError, RequestError
from clip_common.predictor import Predictor
from clip_common.zero_shot import explain as explaining
from clip_common.zero_shot.explain import explain, heat_maps
from tests.support.paths import EXAMPLES

SIDE = 56
LABELS = np.eye(3, dtype=np.float32)


@pytest.fixture(scope="module")
def mini() -> Predictor:
    return Predictor("clip_mini")


@pytest.fixture
def few_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "COPIES", 4)


class Corners:
    """In place of a predictor: the first label is what is light at the top left, the second at the bottom
    right, and the third everywhere alike."""

    logit_scale = 20.0

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode_image(self, pixels: np.ndarray, use_gpu: bool) -> np.ndarray:
        self.batches.append(len(pixels))
        top, bottom = pixels[:, 0, 8:24, 8:24], pixels[:, 0, 32:48, 32:48]
        lit = [top.mean(axis=(1, 2)), bottom.mean(axis=(1, 2))]
        return np.stack([*lit, np.full(len(pixels), 0.5)], axis=1).astype(np.float32)


def spots() -> np.ndarray:
    pixels = np.zeros((3, SIDE, SIDE), np.float32)
    pixels[:, 8:24, 8:24] = pixels[:, 32:48, 32:48] = 1
    return pixels


def maps(chosen: list[int], batch_size: int = 32, embeddings: np.ndarray = LABELS) -> np.ndarray:
    model: Any = Corners()
    return heat_maps(model, spots(), embeddings, chosen, batch_size)


def share(heat: np.ndarray, rows: slice, columns: slice) -> float:
    """Of what speaks for a label, the part that lies in a place."""
    gain = np.clip(heat, 0, None)
    return float(gain[rows, columns].sum() / gain.sum())


@pytest.mark.slow
def test_two_animals_in_one_photograph_each_have_their_own_half(mini: Predictor) -> None:
    """Measured: 0.91 of either map; of maps of nothing, a half."""
    dog, parrot = (Image.open(EXAMPLES / f"photo_{name}.jpg") for name in ("dog", "parrot"))
    image = Image.new("RGB", (288, 288))
    image.paste(dog.crop((200, 0, 344, 288)), (0, 0))
    image.paste(parrot.crop((90, 0, 234, 288)), (144, 0))
    heats = explain(mini, image, ["a car", "a dog", "a tree", "a parrot", "a cat"], top_k=2)
    assert set(heats) == {"a dog", "a parrot"}
    half = mini.preprocess.resolution // 2
    assert share(heats["a dog"], slice(None), slice(half)) > 0.8
    assert share(heats["a parrot"], slice(None), slice(half, None)) > 0.8


def test_what_a_label_is_scored_by_is_where_its_map_is_hot() -> None:
    first, second = maps([0, 1])
    for heat, middle in ((first, 16), (second, 40)):
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert abs(row - middle) <= 8 and abs(column - middle) <= 8
    assert first[40, 40] < -0.2 * first.max()  # what speaks for another label speaks against this one
    assert first.dtype == np.float32 and first.shape == (SIDE, SIDE)


def test_the_order_of_the_labels_asked_for_is_that_of_the_maps() -> None:
    assert np.array_equal(maps([1, 0]), maps([0, 1])[::-1])


def test_maps_are_the_same_every_time_and_with_every_batch_size() -> None:
    assert np.array_equal(maps([0]), maps([0]))
    assert np.allclose(maps([0], batch_size=7), maps([0], batch_size=300), atol=1e-5)


def test_no_batch_is_larger_than_asked_for() -> None:
    model: Any = Corners()
    heat_maps(model, spots(), LABELS, [0], batch_size=100)
    assert model.batches == [100, 100, 56]


def test_what_two_labels_have_in_common_is_not_in_the_map_of_either() -> None:
    alike = maps([0, 1], embeddings=LABELS[[0, 0]])
    assert np.abs(alike).max() < 1e-5 < np.abs(maps([0])).max()


def test_a_label_alone_is_explained_by_its_cosine() -> None:
    (heat,) = maps([0], embeddings=LABELS[:1])
    assert np.unravel_index(heat.argmax(), heat.shape) < (28, 28)
    assert heat[16, 16] > 0 > heat[40, 40]


def test_an_image_without_anything_has_a_map_without_anything(mini: Predictor, few_masks: None) -> None:
    grey = Image.new("RGB", (50, 80), "grey")
    (heat,) = explain(mini, grey, ["a dog", "a cat"]).values()
    assert np.abs(heat).max() < 1e-2


def test_without_labels_the_best_of_the_modules_own_is_explained(mini: Predictor, few_masks: None) -> None:
    path = EXAMPLES / "photo_dog.jpg"
    (answer,) = mini.classify(paths=[path], top_k=1)
    heats = clip_common.explain(mini, path)
    assert list(heats) == [answer[0]["label"]]
    assert heats[answer[0]["label"]].shape == (mini.preprocess.resolution,) * 2


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"image": "nowhere.png"}, ImageError, "nowhere.png: no such file"),
        ({"image": b"no image"}, ImageError, "image: not an image"),
        ({"labels": []}, LabelError, "labels"),
        ({"labels": ["a dog", "a dog"]}, LabelError, "a dog"),
        ({"top_k": 0}, RequestError, "top_k"),
        ({"batch_size": 0}, RequestError, "batch_size"),
    ],
)
def test_what_cannot_be_explained(mini: Predictor, given: dict, error: type[Exception], words: str) -> None:
    call: dict = {"image": EXAMPLES / "dog.png", "labels": ["a dog", "a cat"], **given}
    with pytest.raises(error, match=words.replace("[", r"\[")):
        explain(mini, **call)


def test_a_map_is_of_the_same_size_whatever_the_number_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its values are changes of log odds: more copies make them more exact, not larger."""
    usual = maps([0])[0, 8:24, 8:24].mean()
    monkeypatch.setattr(explaining, "COPIES", 4 * explaining.COPIES)
    assert maps([0])[0, 8:24, 8:24].mean() == pytest.approx(usual, rel=0.2)
