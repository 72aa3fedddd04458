"""The exported towers give what the model gives, in the runtimes they are for."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import numpy as np
import onnx.reference
import paddle
import paddle.inference
import paddlehub as hub
import pytest

from clip_common.engines.paddle_engine import PaddleEngine
from clip_common.models import export
from clip_common.models.clip import CLIP
from clip_common.text.tokenizer import tokenize
from tests.parity import seeded
from tests.parity.tiny import TINY_VIT
from tests.support.paths import ROOT

TEXTS = ["a dog", "two cats on a sofa", "x"]


@pytest.fixture(scope="module")
def module() -> hub.Module:
    return hub.Module(directory=str(ROOT / "modules" / "clip_mini"))


@pytest.fixture(scope="module")
def expected(module: hub.Module) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inputs and what the model makes of them, per tower."""
    engine = PaddleEngine(module.model)
    pixels, ids = seeded.pixels(module.model.config), tokenize(TEXTS)
    return {"image": (pixels, engine.encode_image(pixels)), "text": (ids, engine.encode_text(ids, 3))}


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and float(np.abs(a - b).max()) <= 3e-6 * float(np.abs(b).max())


@pytest.mark.slow
def test_paddle_inference(module: hub.Module, expected: dict, tmp_path: Path) -> None:
    module.save_inference_model(str(tmp_path))
    assert {"image.json", "image.pdiparams", "text.json", "text.pdiparams"} <= {
        f.name for f in tmp_path.iterdir()
    }
    for tower, (given, wanted) in expected.items():
        settings = paddle.inference.Config(
            str(tmp_path / f"{tower}.json"), str(tmp_path / f"{tower}.pdiparams")
        )
        settings.disable_glog_info()
        predictor = paddle.inference.create_predictor(settings)
        predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(given)
        predictor.run()
        found = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
        assert isinstance(found, np.ndarray) and close(found, wanted), tower


@pytest.mark.slow
def test_onnx_and_no_package_is_installed(module: hub.Module, expected: dict, tmp_path: Path) -> None:
    """paddle2onnx's default optimiser would install packages while it runs."""
    before = {(dist.name, dist.version) for dist in importlib.metadata.distributions()}
    module.export_onnx_model(str(tmp_path))
    assert {(dist.name, dist.version) for dist in importlib.metadata.distributions()} == before
    for tower, (given, wanted) in expected.items():
        model = onnx.load(tmp_path / f"{tower}.onnx")
        onnx.checker.check_model(model, full_check=True)
        (found,) = onnx.reference.ReferenceEvaluator(model).run(None, {tower: given})
        assert isinstance(found, np.ndarray) and close(found, wanted), tower


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paddle writes as much as there is room for, and says nothing."""
    model, real = CLIP(TINY_VIT), paddle.jit.save

    def cut_short(layer: object, path: str) -> None:
        real(layer, path)
        file = Path(f"{path}.pdiparams")
        os.truncate(file, file.stat().st_size // 2 if path.endswith("text") else file.stat().st_size)

    monkeypatch.setattr(paddle.jit, "save", cut_short)
    with pytest.raises(OSError, match="not written completely; is the disk full") as raised:
        export.save_inference_model(model, tmp_path / "towers")
    assert raised.value.filename == str(tmp_path / "towers" / "text")
    assert list((tmp_path / "towers").iterdir()) == []
    monkeypatch.undo()
    export.save_inference_model(model, tmp_path / "towers")
    assert len(list((tmp_path / "towers").iterdir())) == 4


def test_training_mode_of_the_model_is_untouched(tmp_path: Path) -> None:
    model = CLIP(TINY_VIT)
    model.eval()
    export.save_inference_model(model, tmp_path)
    assert not model.training
    assert paddle.in_dynamic_mode()
