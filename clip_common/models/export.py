"""Exports the two towers for other runtimes: Paddle Inference and ONNX."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path

import paddle
from paddle import Tensor, nn
from paddle.static import InputSpec

from ..system.output import atomic_file, sync
from ..system.scratch import scratch_folder
from .clip import CLIP

_ONNX_OPSET = 17


class _Tower(nn.Layer):
    """One tower as a separate layer, which shares the tensors of its model."""

    def __init__(self, model: CLIP, encode: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._encode = encode

    def forward(self, x: Tensor) -> Tensor:
        return self._encode(x)


def save_inference_model(model: CLIP, folder: Path) -> list[Path]:
    """Write the towers `image` and `text` for Paddle Inference: a `.json` graph and a `.pdiparams` file each.

    Inputs are pixels, float32 [N, 3, R, R], and token ids, int64 [N, context_length]; outputs are features,
    float32 [N, embed_dim], not normalised.

    Returns:
        The path of each tower, without suffix.

    Raises:
        OSError: the files cannot be written completely, for instance because the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size, context = model.config.image_resolution, model.config.text.context_length
    specs = {
        "image": (model.encode_image, InputSpec([None, 3, size, size], "float32", "image")),
        "text": (model.encode_text, InputSpec([None, context], "int64", "text")),
    }
    with tempfile.TemporaryDirectory(prefix=".unfinished_", dir=folder) as unfinished:
        for name, (encode, spec) in specs.items():
            tower = _Tower(model, encode)
            tower.eval()
            static = paddle.jit.to_static(tower, input_spec=[spec], full_graph=True)
            paddle.jit.save(static, str(Path(unfinished, name)))
            _require_whole(Path(unfinished, name), folder / name)
        for file in Path(unfinished).iterdir():
            sync(file)
            file.replace(folder / file.name)
    return [folder / name for name in specs]


def _require_whole(saved: Path, target: Path) -> None:
    """Check a written tower by loading it: on a full disk Paddle writes incomplete files without an error.

    Raises:
        OSError: the tower is incomplete.
    """
    try:
        paddle.jit.load(str(saved))
    except RuntimeError as error:
        raise OSError(errno.EIO, "it was not written completely; is the disk full?", str(target)) from error


def export_onnx(model: CLIP, folder: Path) -> list[Path]:
    """Write `image.onnx` and `text.onnx`, with the inputs and outputs of `save_inference_model`."""
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder() as temporary:
        saved = save_inference_model(model, temporary)
        return [_to_onnx(tower, folder / f"{tower.name}.onnx") for tower in saved]


def write_onnx(layer: nn.Layer, specs: list[InputSpec], target: Path) -> Path:
    """Write a layer, which must be in eval mode, as ONNX; returns `target`."""
    with scratch_folder() as temporary:
        saved = temporary / target.stem
        paddle.jit.save(paddle.jit.to_static(layer, input_spec=specs, full_graph=True), str(saved))
        return _to_onnx(saved, target)


def _to_onnx(saved: Path, target: Path) -> Path:
    import paddle2onnx  # a second to import, and rarely needed

    # The default optimiser installs packages with pip while it runs, which breaks protobuf.
    with atomic_file(target) as temporary:
        paddle2onnx.export(
            f"{saved}.json",
            f"{saved}.pdiparams",
            str(temporary),
            opset_version=_ONNX_OPSET,
            optimize_tool="None",
        )
    return target
