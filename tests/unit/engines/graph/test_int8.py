"""Graphs in int8 are near float32, also where a few channels are far larger than the others."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from clip_common.config import ClipConfig, EfficientNetConfig, Stage
from clip_common.engines.compile_worker import _mean_cosine, _measure
from clip_common.engines.graph.int8 import Int8Graph, Range, RangesGraph, joined
from clip_common.engines.graph.towers import write_tower
from clip_common.engines.runtime_onnx import open_graph
from tests.parity import seeded
from tests.parity.tiny import TINY_RN, TINY_VIT

EFFICIENTNET = replace(
    TINY_RN,
    name="tiny EfficientNet",
    vision=EfficientNetConfig((Stage(2, 3, 2, 2, 8), Stage(2, 5, 1, 3, 8)), branch=12, stem=4, features=20),
)


def images_of(config: ClipConfig) -> np.ndarray:
    size = config.image_resolution
    return np.random.default_rng(0).standard_normal([10, 3, size, size], np.float32)


def centred_cosine(exact: np.ndarray, found: np.ndarray) -> float:
    """Untrained towers give nearly one vector for all images: what tells them apart is compared."""
    return _mean_cosine(exact - exact.mean(axis=0), found - exact.mean(axis=0))


def in_int8(config: ClipConfig, state: dict[str, np.ndarray], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features of images in float32, which are measured, and in int8."""
    images = images_of(config)
    exact, ranges = _measure(write_tower(config, state, "image", folder, RangesGraph), images)
    kind = partial(Int8Graph, ranges=ranges)
    return exact, open_graph(write_tower(config, state, "image", folder, kind))(images)


@pytest.mark.parametrize("config", [TINY_VIT, TINY_RN, EFFICIENTNET], ids=lambda config: config.name)
def test_int8_is_near_float32(config: ClipConfig, tmp_path: Path) -> None:
    state = seeded.state(config)
    exact, found = in_int8(config, state, tmp_path)
    plain = open_graph(write_tower(config, state, "image", tmp_path))(images_of(config))
    np.testing.assert_allclose(exact, plain, rtol=1e-4, atol=1e-5)
    assert 0 < np.abs(exact - found).max() < 0.03 * np.abs(exact).max()


def test_a_few_large_channels_do_not_take_the_scale_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As trained transformers have them: a norm's gain of 300 that the next layer's weights undo."""
    state = seeded.state(TINY_VIT)
    for block in range(2):
        name = f"visual.transformer.resblocks.{block}"
        for norm, layer in (("ln_1", "attn.in_proj_weight"), ("ln_2", "mlp.c_fc.weight")):
            for part, factor in ((f"{norm}.weight", 300), (f"{norm}.bias", 300), (layer, 1 / 300)):
                state[f"{name}.{part}"] = state[f"{name}.{part}"].astype(np.float32)
                state[f"{name}.{part}"][..., 3] *= factor
    assert centred_cosine(*in_int8(TINY_VIT, state, tmp_path)) > 0.99
    monkeypatch.setattr(Int8Graph, "_smoothed", lambda _, x, weight, given: (x, weight, given))
    assert centred_cosine(*in_int8(TINY_VIT, state, tmp_path)) < 0.9


def test_every_layer_of_the_blocks_is_rounded_and_attention_is_not(tmp_path: Path) -> None:
    in_int8(TINY_VIT, seeded.state(TINY_VIT), tmp_path)
    graph = onnx.load(tmp_path / "image.onnx").graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    layers = [node for node in graph.node if node.op_type in ("MatMul", "Conv")]
    rounded = [node for node in layers if made.get(node.input[1]) == "DequantizeLinear"]
    # Patches, four layers of the whole block, four of the last one's one query, the projection.
    assert len(rounded) == 10
    assert all(made[node.input[0]] == "DequantizeLinear" for node in rounded)
    stored = {constant.name: constant.data_type for constant in graph.initializer}
    assert sum(kind == onnx.TensorProto.INT8 for kind in stored.values()) >= len(rounded)


def test_a_channel_that_is_always_zero_has_a_scale(tmp_path: Path) -> None:
    state = seeded.state(TINY_VIT)
    for part in ("weight", "bias"):
        state[f"visual.transformer.resblocks.0.ln_2.{part}"][:] = 0
    state["visual.transformer.resblocks.0.mlp.c_fc.weight"][:3] = 0
    exact, found = in_int8(TINY_VIT, state, tmp_path)
    assert np.isfinite(found).all() and centred_cosine(exact, found) > 0.99


def test_ranges_of_several_batches_are_joined() -> None:
    first = [Range(np.array([-1.0, 0.0]), np.array([2.0, 1.0]))]
    second = [Range(np.array([0.0, -3.0]), np.array([5.0, 0.0]))]
    (found,) = joined([first, second])
    assert found.low.tolist() == [-1, -3] and found.high.tolist() == [5, 1]


@pytest.mark.parametrize(("low", "high"), [(2.0, 4.0), (-4.0, -2.0), (-1.0, 3.0)])
def test_a_range_is_extended_to_zero(low: float, high: float, tmp_path: Path) -> None:
    """Zero is a value of uint8 itself; a range without it would have none for it."""
    ranges = [Range(np.full(3, low, np.float32), np.full(3, high, np.float32))]
    with Int8Graph(tmp_path / "layer.onnx", {}, ranges) as graph:
        x = graph.input("x", np.float32, ["N", 3])
        path = graph.save(graph.op("MatMul", x, np.eye(3, dtype=np.float32)), 3)
    given = np.linspace(low, high, 12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_allclose(open_graph(path)(given), given, atol=4 / 255)
