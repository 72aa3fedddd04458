"""`ClipModule`, the base class of the modules: PaddleHub's interface to a `Predictor`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paddle
from paddlehub.module.module import RunModule

from ..config import Pretrained
from ..inputs import FilePath
from ..models import export
from ..models.clip import CLIP
from ..predictor import Embeddings, Predictor
from ..preprocessing.image import ImageInput
from ..server import answering
from ..server.limits import Limits
from ..server.request import RequestBody
from ..system.output import require_folder
from ..zero_shot.scoring import Answer, ScoreKind
from ..zero_shot.thresholds import GivenThresholds
from . import run_command

if TYPE_CHECKING:
    import gradio


class ClipModule(RunModule, paddle.nn.Layer):
    """Base class of the PaddleHub modules. It is a Layer so that PaddleHub keeps Paddle in dynamic mode.

    Args:
        weights: path of a weights file, or the tag of published weights; default: the module's own.
        exif_rotation: rotate images according to their EXIF orientation; OpenAI's code does not.
        engine: "auto", "onnxruntime", "openvino" or "paddle", see `Predictor`.
        precision: "float32", "bfloat16" or "int8", see `Predictor`.
        fast_jpeg: decode large JPEG files at reduced size, see `Preprocess`.
    """

    name: str  # set by @moduleinfo
    record: Pretrained  # the model; `record.name` differs from `name` in a module that `adapt` made

    def __init__(
        self,
        weights: str | None = None,
        exif_rotation: bool = False,
        engine: str = "auto",
        precision: str = "float32",
        fast_jpeg: bool = False,
    ) -> None:
        super().__init__()
        folder = Path(inspect.getfile(type(self))).resolve().parent
        self.limits = Limits.from_environment()
        self.predictor = Predictor(self.record, weights, folder, exif_rotation, engine, precision, fast_jpeg)

    @property
    def model(self) -> CLIP:
        """The Paddle model, a `paddle.nn.Layer`; loaded on first use."""
        return self.predictor.model

    def classify(
        self,
        images: Iterable[ImageInput] | ImageInput | None = None,
        paths: Iterable[FilePath] | FilePath | None = None,
        labels: Iterable[str] | None = None,
        templates: str | Iterable[str] | None = None,
        batch_size: int = 32,
        use_gpu: bool = False,
        top_k: int = 5,
        scores: ScoreKind | None = None,
        thresholds: GivenThresholds | None = None,
    ) -> list[Answer]:
        """See `Predictor.classify`."""
        return self.predictor.classify(
            images, paths, labels, templates, batch_size, use_gpu, top_k, scores, thresholds
        )

    def embed(
        self,
        images: Iterable[ImageInput] | ImageInput | None = None,
        paths: Iterable[FilePath] | FilePath | None = None,
        texts: Iterable[str] | str | None = None,
        batch_size: int = 32,
        use_gpu: bool = False,
        normalize: bool = True,
    ) -> Embeddings:
        """See `Predictor.embed`."""
        return self.predictor.embed(images, paths, texts, batch_size, use_gpu, normalize)

    classify.__doc__ = Predictor.classify.__doc__
    embed.__doc__ = Predictor.embed.__doc__

    def predict(self, /, **body: Any) -> Any:
        """Answer an HTTP request; PaddleHub's server calls this with the fields of the JSON body.

        PaddleHub has one entry point per module, so the body says whether to classify or to embed. No field
        is a path or an address, see `request.RequestBody`.

        Raises:
            ClipError: an invalid field; PaddleHub's server puts the message into its response.
        """
        return self._answer(self.predictor, body)

    def create_gradio_app(self) -> gradio.Blocks:
        """The web page that PaddleHub's server runs at `/gradio/<module>`, in a separate process."""
        from ..search.finder import finder_of
        from ..server.web_page import create_page

        # PaddleHub forks that process. Engines that are already open would hang there, so it gets new ones.
        predictor = self.predictor.with_options()

        async def ask(body: dict[str, Any]) -> Any:
            return await asyncio.to_thread(self._answer, predictor, body)

        return create_page(self.record, ask, finder_of(self.record, predictor.options))

    def _answer(self, predictor: Predictor, body: dict[str, Any]) -> Any:
        return answering.answer_one(predictor, RequestBody.parse(body).work(self.limits))

    def run_cmd(self, argvs: list[str]) -> str:
        """Run the module with the arguments of `hub run`; returns the printed text."""
        return run_command.run(self.name, self._predictor_with, argvs)

    def _predictor_with(self, **options: Any) -> Predictor:
        """PaddleHub creates the module before it parses arguments, so loading options are applied here."""
        return self.predictor.with_options(**options) if options else self.predictor

    def save_inference_model(self, dirname: str, **_: Any) -> None:
        """Write both towers for Paddle Inference: `image.json`, `image.pdiparams`, `text.json`, ..."""
        require_folder(Path(dirname))
        export.save_inference_model(self.model, Path(dirname))

    def export_onnx_model(self, dirname: str, **_: Any) -> None:
        """Write both towers as ONNX: `image.onnx`, `text.onnx`."""
        require_folder(Path(dirname))
        export.export_onnx(self.model, Path(dirname))
