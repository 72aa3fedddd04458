"""The names of the port this project grew from, used as its users' scripts use them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

import clip_common
from clip_common import build_rn50_model, build_rn101_model, build_vit_model, tokenize, transform
from clip_common.config import RN50, RN101, VIT_B32, ClipConfig
from clip_common.errors import WeightsError
from tests.parity import seeded
from tests.parity.compare import SCORE_BOUND
from tests.parity.make_golden import golden_file
from tests.parity.seed_port import to_seed_port
from tests.support.checkpoints import Checkpoints

BUILDERS = {RN50: build_rn50_model, RN101: build_rn101_model, VIT_B32: build_vit_model}


@pytest.mark.slow
@pytest.mark.parametrize("config", BUILDERS, ids=lambda config: config.name)
def test_the_seed_ports_script_runs(config: ClipConfig, tmp_path: Path) -> None:
    paddle.save(to_seed_port(seeded.state(config)), str(tmp_path / "model.pdparams"))

    model = BUILDERS[config]()
    model.load_dict(paddle.load(str(tmp_path / "model.pdparams")))
    model.eval()
    image_input = transform(seeded.image())
    image_features = model.encode_image(image_input)
    text = tokenize(seeded.LABELS)
    text_features = model.encode_text(text)
    image_features = image_features / image_features.norm(axis=-1, keepdim=True)
    text_features = text_features / text_features.norm(axis=-1, keepdim=True)
    logit_scale = model.logit_scale.exp()
    logits_per_image = logit_scale * image_features @ text_features.t()
    probs = F.softmax(logits_per_image).numpy()[0]

    assert np.abs(probs - np.load(golden_file(config))["scores"]).max() <= SCORE_BOUND


@pytest.mark.slow
def test_load(checkpoints: Checkpoints) -> None:
    model = clip_common.load("clip_vit_b32", weights=checkpoints(VIT_B32))
    assert isinstance(model, paddle.nn.Layer)
    assert not model.training
    assert {str(p.dtype) for p in model.parameters()} == {"paddle.float32"}
    assert model.logit_scale.shape == []
    assert float(model.logit_scale.exp()) == pytest.approx(100, abs=1e-4)
    with pytest.raises(WeightsError, match=r"do not fit RN50 \(these are the weights of ViT-B/32\)"):
        clip_common.load("clip_rn50", weights=checkpoints(VIT_B32))
    with pytest.raises(ValueError, match="no module is named 'nope': there are clip_rn50"):
        clip_common.load("nope")


def test_shapes_and_types() -> None:
    ids = tokenize(["a diagram", "a dog"])
    assert (ids.shape, str(ids.dtype)) == ([2, 77], "paddle.int64")
    pixels = transform(seeded.image())
    assert (pixels.shape, str(pixels.dtype)) == ([1, 3, 224, 224], "paddle.float32")


def test_tokenizer_and_preprocessing_import_no_framework() -> None:
    code = (
        "import sys, clip_common, clip_common.text.tokenizer, clip_common.preprocessing.image; "
        "sys.exit('paddle' in sys.modules or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
