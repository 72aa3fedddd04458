"""Other ways to run CLIP (peers), each with its best fair settings, all with the same random weights.

- torch: the authors' own model code (packages openai-clip, and cn-clip for Chinese), in inference mode.
- ONNX Runtime and OpenVINO: the model as `export_onnx` writes it; for trimmed texts, the same graph with a
  dynamic length.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from paddle import Tensor, nn
from paddle.static import InputSpec
from PIL import Image

from clip_common.config import BertConfig, ClipConfig
from clip_common.models.clip import CLIP
from clip_common.models.export import export_onnx, write_onnx
from tests.parity import chinese_reference, make_golden, reference, seeded

Tower = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Peer:
    """A peer: its name and its two towers."""

    name: str
    image: Tower
    text: Tower
    trimmed_text: Tower | None
    """The text tower for texts shorter than the context; None if the peer does not support them."""


def peers(config: ClipConfig, folder: Path, threads: int) -> list[Peer]:
    """All peers that are installed here."""
    state = seeded.state(config)
    found = [_torch(config, state, threads)] if make_golden.available(config) else []
    model = CLIP(config)
    model.load_openai(state)
    model.eval()
    image, text = export_onnx(model, folder)
    free = _Text(model)
    free.eval()
    trimmed = write_onnx(free, [InputSpec([None, None], "int64", "text")], folder / "trimmed.onnx")
    for package, opened in (("onnxruntime", onnx_tower), ("openvino", _openvino)):
        if importlib.util.find_spec(package):
            found.append(Peer(package, *(opened(path, threads) for path in (image, text, trimmed))))
    return found


class _Text(nn.Layer):
    """The text tower as a separate layer."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, text: Tensor) -> Tensor:
        """Token ids [N, L] to features."""
        return self.model.encode_text(text)


def prepare(image: Image.Image, config: ClipConfig) -> np.ndarray:
    """The pixels of an image, preprocessed like the authors' code."""
    is_chinese = isinstance(config.text, BertConfig)
    code = chinese_reference if is_chinese else reference
    return code.reference_pixels(image, config.image_resolution)


def _torch(config: ClipConfig, state: dict[str, np.ndarray], threads: int) -> Peer:
    import torch

    torch.set_num_threads(threads)
    model = make_golden.build_reference(config, state).eval()

    def tower(encode: Callable[[Any], Any]) -> Tower:
        def run(given: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return encode(torch.from_numpy(given)).numpy()

        return run

    text = tower(model.encode_text)
    trimmed = text if isinstance(config.text, BertConfig) else None  # OpenAI's mask has a fixed length
    return Peer("torch", tower(model.encode_image), text, trimmed)


def onnx_tower(path: Path, threads: int) -> Tower:
    """A function that runs a graph with one input and one output on ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda given: session.run(None, {name: given})[0]


def _openvino(path: Path, threads: int) -> Tower:
    from clip_common.engines.runtime_openvino import openvino  # without its telemetry

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda given: request.infer([given])[0].copy()
