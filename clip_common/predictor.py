"""`Predictor`: zero-shot classification and embeddings with the model of one module.

It preprocesses images, tokenizes texts, runs an engine and scores the result. It knows nothing of PaddleHub,
HTTP or the command line: `hub/`, `server/` and `cli/` are adapters around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypedDict, overload

import numpy as np

from .config import Pretrained, pretrained
from .engines.base import Engine
from .engines.image_batching import encode_images
from .engines.select import Engines, choose
from .errors import ImageError, RequestError
from .inputs import FilePath, NamedImage, check_count, check_flag, check_texts, named_images
from .preprocessing.image import ImageInput, Preprocess
from .text.prompts import Prompts
from .text.tokenizer import tokenize, tokenizer_of
from .weights.locate import find
from .weights.weights_file import WeightsFile
from .zero_shot.label_embeddings import Encode, Progress
from .zero_shot.labels import Labels, WeightsLabels
from .zero_shot.scoring import Answer, ScoreKind, l2_normalize, top_k_labels
from .zero_shot.thresholds import GivenThresholds

if TYPE_CHECKING:
    from .models.clip import CLIP


class Embeddings(TypedDict):
    """Image and text embeddings, float32 [n, d] each; None for the kind that was not passed.

    The type is `Any`, not None, because callers know what they passed and need not check.
    """

    images: np.ndarray | Any
    texts: np.ndarray | Any


class ImageEmbeddings(TypedDict):
    """`Embeddings` of a call without texts."""

    images: np.ndarray
    texts: None


class TextEmbeddings(TypedDict):
    """`Embeddings` of a call without images."""

    images: None
    texts: np.ndarray


@dataclass(frozen=True)
class PredictorOptions:
    """The loading options of a `Predictor`, as one value to pass on."""

    weights: str | Path | None = None
    exif_rotation: bool = False
    engine: str = "auto"
    precision: str = "float32"
    fast_jpeg: bool = False

    def predictor(self, record: Pretrained, module_dir: Path | None = None) -> Predictor:
        """Create the module's predictor with these options."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        return Predictor(record, module_dir=module_dir, **chosen)


@dataclass(frozen=True)
class _Loaded:
    """The parts of a predictor that depend on its weights."""

    weights: WeightsFile
    engines: Engines
    labels: WeightsLabels


class Predictor:
    """A CLIP model with its tokenizer, preprocessing, engine and label cache.

    Weights are loaded lazily, by the first call that needs them.

    Args:
        record: the module, by name ("clip_vit_b32") or as its record.
        weights: path of a weights file, or the tag of published weights. None uses the module's default
            weights: from the module's folder, then the cache, then a download.
        module_dir: the module's folder, which may contain its weights.
        exif_rotation: rotate images according to their EXIF orientation. Off by default, as in OpenAI's code.
        engine: the CPU backend: "onnxruntime", "openvino", "paddle", or "auto" for the fastest one that is
            installed.
        precision: the compute type on the CPU: "float32", "bfloat16", or "int8" (image encoder layers only).
            The last two require a CPU with hardware support, and OpenVINO. Features are always float32, and
            a GPU always computes in float32.
        fast_jpeg: decode large JPEG files at reduced size, see `Preprocess`.

    Raises:
        RequestError: unknown module, or the engine or precision is not available on this machine.

    Examples:
        >>> clip = Predictor("clip_mini")
        >>> clip.record.config.embed_dim == clip.embed(texts=["a dog"])["texts"].shape[1]
        True
    """

    def __init__(
        self,
        record: Pretrained | str,
        weights: str | Path | None = None,
        module_dir: Path | None = None,
        exif_rotation: bool = False,
        engine: str = "auto",
        precision: str = "float32",
        fast_jpeg: bool = False,
    ) -> None:
        self._choice = choose(engine, precision)  # a wrong name is an error here, not at the first call
        self.record = record if isinstance(record, Pretrained) else pretrained(record)
        self.module_dir = module_dir
        exif_rotation = check_flag("exif_rotation", exif_rotation)
        fast_jpeg = check_flag("fast_jpeg", fast_jpeg)
        self.options = PredictorOptions(weights, exif_rotation, engine, precision, fast_jpeg)
        self._lock = Lock()
        self._loaded: _Loaded | None = None

    def with_options(self, **changes: Any) -> Predictor:
        """A new predictor for the same module, with some `PredictorOptions` changed."""
        return replace(self.options, **changes).predictor(self.record, self.module_dir)

    def _load(self) -> _Loaded:
        """Find and load the weights, once."""
        with self._lock:
            if self._loaded is None:
                weights = find(self.record, self.options.weights, self.module_dir)
                labels = WeightsLabels.read(weights, self._choice.precision)
                self._loaded = _Loaded(weights, Engines(weights, self._choice), labels)
            return self._loaded

    @property
    def weights_sha256(self) -> str:
        """The hash that identifies the weights, see `WeightsFile.identity`."""
        return self._load().weights.identity

    @cached_property
    def preprocess(self) -> Preprocess:
        """The image preprocessing that these weights require."""
        record, options = self._load().weights.record, self.options
        size = record.config.image_resolution
        return Preprocess(size, record.preprocessing, options.exif_rotation, options.fast_jpeg)

    @property
    def model(self) -> CLIP:
        """The Paddle model, a `paddle.nn.Layer`."""
        return self._load().engines.model

    @property
    def logit_scale(self) -> float:
        """The factor that the softmax multiplies cosines by (100 for OpenAI's models), not its logarithm."""
        return self._load().engines.logit_scale

    def engine(self, use_gpu: bool = False) -> Engine:
        """The engine that runs the model, on the CPU or the GPU.

        Raises:
            RequestError: `use_gpu` is set, but Paddle was built without CUDA or there is no GPU.
        """
        return self._load().engines.get(check_flag("use_gpu", use_gpu))

    # --- the two public calls -------------------------------------------------------------------------

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
        """Classify images against labels (zero-shot classification, paper section 3.1).

        Args:
            images: PIL images, numpy arrays [H, W, 3] in BGR order, or encoded files as bytes. Arrays are
                usually uint8; see `preprocessing/image.py` for other types. One image, or any iterable of
                images.
            paths: one image file or several. Their results come after those of `images`.
            labels: candidate labels; default: the module's own label set.
            templates: one prompt template with `{}` for the label, several, or the name of a set:
                "openai" (80), "openai7", "zh" (Chinese). With several, a label's embedding is the normalised
                mean. Default: the label itself, without a template, if labels are passed; else the module's
                default templates.
            batch_size: number of images prepared and passed to the engine at once. A compiled engine may
                split a batch.
            use_gpu: run on the GPU.
            top_k: maximum number of labels per image.
            scores: "softmax" over all labels, 0..1, adds up to 1; or "cosine" of image and label, -1..1,
                independent of the other labels. Default: softmax, or the kind that a thresholds file says.
            thresholds: the score that a label must reach; labels below it are left out of the result. One
                number for all labels; one per label, as a sequence in the order of the labels or as
                {label: number}; or the path of a file that `clip-hub evaluate --thresholds` wrote. Such a
                file also provides labels and templates where they are not passed.

        Returns:
            One list per image of {"label": str, "score": float}, best first. With thresholds, an empty list
            means that no label reaches its threshold.

        Raises:
            ImageError: an image cannot be read; the message names its index or path.
            LabelError: invalid labels or templates.
            WeightsError: weights are not available, damaged, or do not fit the model.
            RequestError: an invalid argument, or a thresholds file that was fitted to another model.

        Examples:
            >>> clip = Predictor("clip_mini")
            >>> labels = ["a diagram", "a dog", "a cat"]
            >>> answers = clip.classify(paths=["examples/diagram.png"], labels=labels, top_k=1)
            >>> answers[0][0]["label"]
            'a diagram'
            >>> clip.classify(paths=["examples/diagram.png"], labels=labels, scores="cosine", thresholds=0.9)
            [[]]
        """
        named = named_images(images, paths)
        if not named:
            raise RequestError("nothing to classify: give images or paths")
        check_count("top_k", top_k)
        prompts, scoring = self.labels.prompts_and_scoring(labels, templates, scores, thresholds)
        targets = self.labels.targets(prompts, use_gpu)
        features = self._all_features(named, batch_size, use_gpu)
        scale = self.logit_scale
        return [top_k_labels(one, targets, scale, prompts.labels, top_k, scoring) for one in features]

    @overload
    def embed(
        self,
        images: Iterable[ImageInput] | ImageInput | None = None,
        paths: Iterable[FilePath] | FilePath | None = None,
        texts: None = None,
        batch_size: int = ...,
        use_gpu: bool = ...,
        normalize: bool = ...,
    ) -> ImageEmbeddings: ...

    @overload
    def embed(  # type: ignore[overload-overlap]  # the last one is for arguments that may be None
        self,
        images: None = None,
        paths: None = None,
        *,
        texts: Iterable[str] | str,
        batch_size: int = ...,
        use_gpu: bool = ...,
        normalize: bool = ...,
    ) -> TextEmbeddings: ...

    @overload
    def embed(
        self,
        images: Iterable[ImageInput] | ImageInput | None = None,
        paths: Iterable[FilePath] | FilePath | None = None,
        texts: Iterable[str] | str | None = None,
        batch_size: int = ...,
        use_gpu: bool = ...,
        normalize: bool = ...,
    ) -> Embeddings: ...

    def embed(
        self,
        images: Iterable[ImageInput] | ImageInput | None = None,
        paths: Iterable[FilePath] | FilePath | None = None,
        texts: Iterable[str] | str | None = None,
        batch_size: int = 32,
        use_gpu: bool = False,
        normalize: bool = True,
    ) -> Embeddings | ImageEmbeddings | TextEmbeddings:
        """Embed images and texts into the same space.

        Args:
            images: as for `classify`.
            paths: one image file or several. Their embeddings come after those of `images`.
            texts: one text or several, of at most as many tokens as the model reads (77; Chinese models 52).
            batch_size: number of images or texts passed to the engine at once. A compiled engine may split a
                batch.
            use_gpu: run on the GPU.
            normalize: scale embeddings to unit length, so that dot products are cosines.

        Returns:
            {"images": float32 [n, d] or None, "texts": float32 [m, d] or None}.

        Raises:
            ImageError: an image cannot be read; the message names its index or path.
            LabelError: a text has too many tokens.
            WeightsError: weights are not available, damaged, or do not fit the model.
            RequestError: an invalid argument.

        Examples:
            >>> clip = Predictor("clip_mini")
            >>> embeddings = clip.embed(paths=["examples/dog.png"], texts=["a dog", "a cat"])
            >>> (embeddings["images"] @ embeddings["texts"].T).shape  # cosines
            (1, 2)
        """
        named = named_images(images, paths)
        texts = None if texts is None else check_texts(texts)
        if not named and texts is None:
            raise RequestError("nothing to embed: give images, paths or texts")
        finish = l2_normalize if check_flag("normalize", normalize) else np.asarray
        image_features = self._all_features(named, batch_size, use_gpu) if named else None
        text_features = None if texts is None else self.text_features(texts, batch_size, use_gpu)
        return {
            "images": None if image_features is None else finish(image_features),
            "texts": None if text_features is None else finish(text_features),
        }

    # --- features -------------------------------------------------------------------------------------

    def image_features(
        self, images: Iterable[NamedImage], batch_size: int = 32, use_gpu: bool = False
    ) -> Iterator[list[np.ndarray | ImageError]]:
        """Encode images batch by batch, in order, see `encode_images`."""
        return encode_images(self._engine_for(batch_size, use_gpu), self.prepare, images, batch_size)

    def prepare(self, image: NamedImage) -> np.ndarray | ImageError:
        """Preprocess one image to float32 [3, R, R]. An unreadable image returns its error."""
        name, source = image
        try:
            return self.preprocess.pixels(source, name)
        except ImageError as error:
            return error

    def encode_image(self, pixels: np.ndarray, use_gpu: bool = False) -> np.ndarray:
        """Encode preprocessed images, float32 [n, 3, R, R], to features, float32 [n, d], not normalised."""
        return self.engine(use_gpu).encode_image(pixels)

    def tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Tokenize texts to int64 [n, context_length]; raises `LabelError` for a text that is too long."""
        text = self.record.config.text
        return tokenize(texts, text.context_length, tokenizer=tokenizer_of(text))

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Total number of tokens, start and end tokens included; raises as `tokenize` does."""
        end = tokenizer_of(self.record.config.text).end
        ids = self.tokenize(texts)
        return int((ids.shape[1] - (ids[:, ::-1] == end).argmax(axis=1)).sum())

    def text_features(self, texts: Sequence[str], batch_size: int = 32, use_gpu: bool = False) -> np.ndarray:
        """Encode texts to features, float32 [n, d], not normalised. Equal texts are computed once."""
        engine = self._engine_for(batch_size, use_gpu)
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        ids = self.tokenize(list(distinct))
        features = engine.encode_text(ids, batch_size)
        return features[[distinct[text] for text in texts]]

    def _all_features(self, images: Sequence[NamedImage], batch_size: int, use_gpu: bool) -> np.ndarray:
        features = []
        for batch in self.image_features(images, batch_size, use_gpu):
            for item in batch:
                if isinstance(item, ImageError):
                    raise item
                features.append(item)
        return np.stack(features)

    def _engine_for(self, batch_size: int, use_gpu: bool) -> Engine:
        check_count("batch_size", batch_size)
        return self.engine(use_gpu)

    # --- labels ---------------------------------------------------------------------------------------

    @property
    def labels(self) -> Labels:
        """The labels of this module: prompts, thresholds and what images are compared with."""
        return Labels(self.record, lambda: self._load().labels, self.text_features)

    def prompts(self, labels: Iterable[str] | None, templates: str | Iterable[str] | None) -> Prompts:
        """Resolve labels and templates to the prompts of `label_embeddings`, with the defaults of `classify`.

        Raises:
            LabelError: invalid labels or templates.
        """
        return self.labels.prompts(labels, templates)

    def label_embeddings(
        self,
        prompts: Prompts,
        use_gpu: bool = False,
        on_progress: Progress | None = None,
        encode: Encode | None = None,
    ) -> np.ndarray:
        """One embedding per label, float32 [labels, d]; see `Labels.embeddings`."""
        return self.labels.embeddings(prompts, use_gpu, on_progress, encode)
