"""EfficientNet-Lite1 against its package on torch, stage by stage, and as the graph that the engines run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from clip_common.config import MINI
from clip_common.engines.graph.towers import write_tower
from clip_common.engines.runtime_onnx import open_graph
from clip_common.models.clip import CLIP
from clip_common.models.efficientnet import EfficientNet
from tests.parity import seeded
from tests.parity.compare import CENTERED_BOUND, EMBEDDING_BOUND, STAGE_BOUND
from tests.parity.make_efficientnet_golden import GOLDEN, sample


@pytest.fixture(scope="module")
def model() -> CLIP:
    model = CLIP(MINI)
    model.load_openai(seeded.state(MINI))
    model.eval()
    return model


@paddle.no_grad()
def stages_of(visual: EfficientNet, pixels: np.ndarray) -> dict[str, np.ndarray]:
    x = F.relu6(visual.bn_stem(visual.conv_stem(paddle.to_tensor(pixels))))
    seen = {"stem": x.numpy()}
    for number, block in enumerate(visual.blocks):
        x = block(x)
        seen[f"block {number}"] = x.numpy()
    seen["pooled"] = visual.pool(paddle.to_tensor(pixels)).numpy()
    return seen


def test_stages_are_those_of_the_package(model: CLIP) -> None:
    golden = dict(np.load(GOLDEN))
    ours = {name: sample(value) for name, value in stages_of(model.visual, seeded.pixels(MINI)).items()}
    assert list(golden) == list(ours)
    for name, value in golden.items():
        assert value.std() > 1e-3, name
        assert np.abs(ours[name] - value).max() <= STAGE_BOUND * value.std(), name
    unit, expected = (l2(each["pooled"]) for each in (ours, golden))
    assert np.abs(unit - expected).max() <= EMBEDDING_BOUND
    rest, expected = (each - each.mean(axis=0) for each in (unit, expected))
    assert np.abs(rest - expected).max() <= CENTERED_BOUND * expected.std()


def test_the_tower_of_the_engines_gives_what_the_model_gives(model: CLIP, tmp_path: Path) -> None:
    pixels = seeded.pixels(MINI)
    with paddle.no_grad():
        expected = model.encode_image(paddle.to_tensor(pixels)).numpy()
    found = open_graph(write_tower(MINI, seeded.state(MINI), "image", tmp_path))(pixels)
    assert np.abs(l2(found) - l2(expected)).max() <= EMBEDDING_BOUND


def l2(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
