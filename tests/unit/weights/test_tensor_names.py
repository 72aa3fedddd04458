"""Wrappers around state dicts, and the layouts of models with a BERT."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import save_file

from clip_common.config import CN_VIT_H14, PRETRAINED, ClipConfig, ViTConfig
from clip_common.errors import WeightsError
from clip_common.models.clip import CLIP
from clip_common.weights.readers import read_state
from clip_common.weights.schema import expected_shapes, identify, infer_config
from clip_common.weights.tensor_names import State, to_openai
from tests.parity import seeded
from tests.parity.tiny import TINY_CHINESE_RN, TINY_CHINESE_VIT, TINY_RN, TINY_VIT
from tests.support.layouts import to_huggingface
from tests.support.paths import DATA

CHINESE = pytest.mark.parametrize("config", [TINY_CHINESE_VIT, TINY_CHINESE_RN], ids=lambda c: c.name)
EVERY = pytest.mark.parametrize(
    "config", [TINY_VIT, TINY_RN, TINY_CHINESE_VIT, TINY_CHINESE_RN], ids=lambda config: config.name
)


def assert_same(found: State, expected: State) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name


# --- a BERT ------------------------------------------------------------------------------------------


def test_a_checkpoint_of_cn_clips() -> None:
    """As its training script saves it, with torch: wrapped, in data parallel, with a pooler."""
    assert_same(to_openai(read_state(DATA / "chinese_vit.pt")), seeded.state(TINY_CHINESE_VIT))


def test_hugging_faces_chinese_names(tmp_path: Path) -> None:
    layout = to_huggingface(seeded.state(TINY_CHINESE_VIT))
    assert "text_model.encoder.layer.1.attention.self.query.weight" in layout
    save_file(layout, tmp_path / "hf.safetensors")
    assert_same(to_openai(read_state(tmp_path / "hf.safetensors")), seeded.state(TINY_CHINESE_VIT))


@CHINESE
def test_our_own_names_of_a_bert(config: ClipConfig, tmp_path: Path) -> None:
    """Square matrices, so that a wrong orientation shows in the values alone."""
    model = CLIP(config)
    model.load_openai(seeded.state(config))
    paddle.save(model.state_dict(), str(tmp_path / "own.pdparams"))
    assert_same(to_openai(read_state(tmp_path / "own.pdparams")), seeded.state(config))


@CHINESE
def test_dimensions_of_a_bert_are_read_from_the_tensors(config: ClipConfig) -> None:
    found = infer_config(seeded.state(config))
    assert vars(found.vision) == vars(config.vision)
    assert {**vars(found.text), "context_length": 8} == vars(config.text)  # which no tensor tells


@pytest.mark.parametrize("record", PRETRAINED.values(), ids=lambda record: record.name)
def test_every_module_is_told_by_its_tensors(record: object) -> None:
    """Also that with attention heads of another width, which no tensor tells."""
    config = record.config  # type: ignore[attr-defined]
    shapes = expected_shapes(config).items()
    assert identify({name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes}) == config.name


def test_heads_of_the_largest_are_80_wide() -> None:
    assert isinstance(CN_VIT_H14.vision, ViTConfig) and CN_VIT_H14.vision.heads == 16


@CHINESE
def test_a_missing_tensor_of_a_bert_is_named(config: ClipConfig) -> None:
    state = seeded.state(config)
    name = "bert.encoder.layer.1.output.LayerNorm.bias"
    del state[name]
    with pytest.raises(WeightsError, match=f"missing: {name}"):
        CLIP(config).load_openai(to_openai(state))


# --- wrappers ----------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_wrapped_state_dicts_are_read(config: ClipConfig, wrapper: str, prefix: str, tmp_path: Path) -> None:
    state = {prefix + name: value for name, value in seeded.state(config).items()}
    path = tmp_path / "wrapped.pdparams"
    path.write_bytes(pickle.dumps({"epoch": 3, wrapper: state, "optimizer": {"lr": 0.1}}, 2))
    assert_same(to_openai(read_state(path)), seeded.state(config))
