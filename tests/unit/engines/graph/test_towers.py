"""The graphs that are written for the runtimes give the model's features, and their weights are mapped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import paddle
import pytest

from clip_common.config import RN50, RN101, VIT_B32, ClipConfig, EfficientNetConfig, Stage
from clip_common.engines.compiled_engine import Tower
from clip_common.engines.graph.builder import Graph
from clip_common.engines.graph.towers import TOWERS, TowerName, probe, write_tower
from clip_common.engines.runtime_onnx import open_graph
from clip_common.models.clip import CLIP
from clip_common.text.tokenizer import tokenize
from clip_common.weights.readers import read_state
from clip_common.weights.weights_file import write_safetensors
from tests.parity import seeded
from tests.parity.compare import EMBEDDING_BOUND
from tests.parity.tiny import TINY_CHINESE_RN, TINY_CHINESE_VIT, TINY_RN, TINY_VIT
from tests.support.memory import mapped_pages, resident

EFFICIENTNET = replace(
    TINY_RN,
    name="tiny EfficientNet",
    vision=EfficientNetConfig((Stage(2, 3, 2, 2, 8), Stage(2, 5, 1, 3, 8)), branch=12, stem=4, features=20),
)
GELU = replace(TINY_VIT, name="tiny ViT, GELU", activation="gelu")
TEXTS = [*seeded.TEXTS, "x", "a dog " * 30]


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def model_of(config: ClipConfig) -> CLIP:
    model = CLIP(config)
    model.load_openai(seeded.state(config))
    model.eval()
    return model


def tower_of(config: ClipConfig, name: TowerName, folder: Path) -> Tower:
    return open_graph(write_tower(config, seeded.state(config), name, folder))


def require_equal(ours: np.ndarray, expected: np.ndarray) -> None:
    assert ours.dtype == np.float32 and ours.shape == expected.shape
    assert np.abs(unit(ours) - unit(expected)).max() <= EMBEDDING_BOUND


def encode(model: CLIP, name: TowerName, given: list[np.ndarray]) -> np.ndarray:
    """What the model makes of what a tower is given."""
    *prefix, last = given
    whole = [np.broadcast_to(tokens, (len(last), len(tokens))) for tokens in prefix] + [last]
    with paddle.no_grad():
        encoder = model.encode_image if name == "image" else model.encode_text
        return encoder(paddle.to_tensor(np.concatenate(whole, axis=1) if prefix else last)).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("config", [RN50, RN101, VIT_B32], ids=lambda config: config.name)
def test_the_towers_are_the_model(config: ClipConfig, tmp_path: Path) -> None:
    model, ids = model_of(config), tokenize(TEXTS)
    questions: dict[TowerName, list[np.ndarray]] = {
        "image": [seeded.pixels(config)],
        "text": [ids[0, :1], ids[:, 1:]],
    }
    for name, given in questions.items():
        require_equal(tower_of(config, name, tmp_path)(*given), encode(model, name, given))


@pytest.mark.parametrize(
    "config",
    [TINY_VIT, TINY_RN, TINY_CHINESE_VIT, TINY_CHINESE_RN, GELU, EFFICIENTNET],
    ids=lambda config: config.name,
)
def test_the_towers_of_every_kind_are_the_model(config: ClipConfig, tmp_path: Path) -> None:
    config = replace(config, text=replace(config.text, context_length=12))  # what `probe` asks takes 9
    model = model_of(config)
    for name in TOWERS:
        given = probe(config, name)
        require_equal(tower_of(config, name, tmp_path)(*given), encode(model, name, given))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 7), (5, 1, 3), (3, 4, 1)])
def test_texts_of_any_shape(shape: tuple[int, int, int], tmp_path: Path) -> None:
    """A prefix of so many tokens, so many texts, and so many tokens of their own."""
    shared, texts, length = shape
    rng = np.random.default_rng(0)
    prefix, suffix = rng.integers(1, 60, shared), rng.integers(1, 60, (texts, length))
    suffix[:, rng.integers(length)] = TINY_VIT.text.vocab_size - 1  # the end token
    given = [prefix, suffix]
    require_equal(tower_of(TINY_VIT, "text", tmp_path)(*given), encode(model_of(TINY_VIT), "text", given))


@pytest.mark.parametrize("length", [2, 5, 8])
def test_padding_of_a_bert_changes_nothing(length: int, tmp_path: Path) -> None:
    """Its attention is not causal: padding has to be masked, in the model and in the tower."""
    model, tower = model_of(TINY_CHINESE_VIT), tower_of(TINY_CHINESE_VIT, "text", tmp_path)
    ids = np.zeros((1, 8), np.int64)
    ids[0, :length] = range(9, 9 + length)
    trimmed = ids[:, :length]
    require_equal(encode(model, "text", [ids]), encode(model, "text", [trimmed]))
    require_equal(tower(ids), tower(trimmed))


@pytest.mark.parametrize(
    "config", [TINY_VIT, TINY_RN, TINY_CHINESE_VIT, EFFICIENTNET], ids=lambda config: config.name
)
def test_every_tensor_of_the_weights_is_used(config: ClipConfig, tmp_path: Path) -> None:
    """But for the logit scale, which is no tower's."""
    state = Recorded(seeded.state(config))
    for name in TOWERS:
        write_tower(config, state, name, tmp_path)
    assert set(state) - state.read == {"logit_scale"}


class Recorded(dict[str, np.ndarray]):
    """A state that remembers what was read of it."""

    def __init__(self, state: dict[str, np.ndarray]) -> None:
        super().__init__(state)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        self.read.add(name)
        return super().__getitem__(name)


@mapped_pages
def test_weights_that_are_written_are_given_back(tmp_path: Path) -> None:
    config = replace(TINY_VIT, text=replace(TINY_VIT.text, vocab_size=100_000))
    path = tmp_path / "large.safetensors"
    write_safetensors(seeded.state(config), path, {})
    state = read_state(path)
    assert state["token_embedding.weight"].sum() != 0 and resident(path) > 6000
    write_tower(config, state, "text", tmp_path)
    assert resident(path) < 1000


def test_large_weights_are_beside_the_graph_where_they_can_be_mapped(tmp_path: Path) -> None:
    table, scale = np.arange(2000).reshape(1000, 2), np.array([2, 3], np.float32)
    state = {"large": np.ones(301, np.float16), "table": table.astype(np.float16)}
    with Graph(tmp_path / "graph.onnx", state) as graph:
        total = graph.op("ReduceSum", graph.weight("large"))  # 301 numbers, after which comes a gap
        rows = graph.op("Gather", graph.weight("table"), graph.input("x", np.int64, ["N"]))
        path = graph.save(graph.op("Add", graph.op("Mul", rows, scale), total), 2)
    np.testing.assert_array_equal(open_graph(path)(np.array([3, 1])), table[[3, 1]] * scale + 301)
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in tensors]
    assert [place.get("location") for place in places] == ["graph.onnx.data", "graph.onnx.data", None]
    assert [int(place["offset"]) for place in places[:2]] == [0, 1216]
    assert path.stat().st_size < 1000
