"""Ours against the code of OpenAI, open_clip and cn-clip: stage by stage, both towers, every architecture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from clip_common import config as architectures
from clip_common.config import ClipConfig
from clip_common.models.clip import CLIP
from clip_common.weights.readers import read_state
from clip_common.weights.schema import expected_shapes
from clip_common.weights.tensor_names import to_openai
from tests.parity import make_golden, seeded, stages
from tests.parity.architectures import SHALLOW, WHOLE
from tests.parity.compare import compare
from tests.parity.make_golden import golden_file, run_reference
from tests.parity.ours import run_engine, run_ours
from tests.parity.reference import available, save_torchscript
from tests.support.checkpoints import Checkpoints

BACKBONES = pytest.mark.parametrize("config", WHOLE, ids=lambda config: config.name)
ALL = pytest.mark.parametrize("config", [*WHOLE, *SHALLOW], ids=lambda config: config.name)
live = pytest.mark.skipif(not available(), reason="needs torch and openai-clip; CI installs both")


@ALL
def test_stages_are_those_of_the_reference(config: ClipConfig) -> None:
    state = seeded.state(config)  # whose names and shapes are listed by hand, from the references' code
    assert expected_shapes(config) == {name: value.shape for name, value in state.items()}
    ours = {name: stages.sample(name, value) for name, value in run_ours(config, state).items()}
    golden = dict(np.load(golden_file(config)))
    assert set(golden) == set(ours)
    assert [figure for figure in compare(ours, golden) if not figure.passed] == []


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])  # the default is one of them
@pytest.mark.parametrize("config", WHOLE, ids=lambda config: config.name)
def test_compiled_engines_keep_the_same_bounds(
    config: ClipConfig, engine: str, checkpoints: Checkpoints
) -> None:
    pytest.importorskip(engine)
    ours = run_engine(config, checkpoints(config), engine)
    golden = {name: value for name, value in np.load(golden_file(config)).items() if name in ours}
    assert set(golden) == set(ours)
    assert [figure for figure in compare(ours, golden) if not figure.passed] == []


@live
@BACKBONES
def test_live_from_an_official_archive(config: ClipConfig, tmp_path: Path) -> None:
    """OpenAI's code on torch beside ours, which reads the archive that torch wrote."""
    state = seeded.state(config)
    archive = tmp_path / "official.pt"
    save_torchscript(state, archive)
    read = to_openai(read_state(archive))
    assert {name: value.dtype for name, value in read.items()} == {name: v.dtype for name, v in state.items()}
    figures = compare(run_ours(config, read), run_reference(config, state))
    assert [figure for figure in figures if not figure.passed] == []


@pytest.mark.parametrize("config", SHALLOW, ids=lambda config: config.name)
def test_live_shallow(config: ClipConfig) -> None:
    """The code of those who trained such weights, on torch, beside ours."""
    if not make_golden.available(config):
        pytest.skip("needs torch and openai-clip, open_clip_torch or cn-clip")
    state = seeded.state(config)
    figures = compare(run_ours(config, state), run_reference(config, state))
    assert [figure for figure in figures if not figure.passed] == []


def test_golden_images_differ_from_each_other() -> None:
    """Else the comparison could not tell a tower from a constant."""
    for config in (*WHOLE, *SHALLOW):
        image = np.load(golden_file(config))["image"]
        unit = image / np.linalg.norm(image, axis=1, keepdims=True)
        assert unit.std(axis=0).mean() > 1e-3


@pytest.mark.parametrize("length", [4, 9, 40])
def test_padding_changes_nothing(length: int) -> None:
    """Texts padded to the longest of a batch give what they give when padded to 77."""
    model = CLIP(architectures.MINI)
    model.load_openai(seeded.state(architectures.MINI))
    model.eval()
    ids = np.zeros((1, 77), np.int64)
    ids[0, :length] = [49406, *range(300, 300 + length - 2), 49407]
    with paddle.no_grad():
        padded = model.encode_text(paddle.to_tensor(ids)).numpy()
        trimmed = model.encode_text(paddle.to_tensor(ids[:, :length])).numpy()
    assert np.abs(padded - trimmed).max() <= 1e-5 * np.abs(padded).max()
