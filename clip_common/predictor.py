"""One module's work, from images and texts to answers: preprocess or tokenize, engine, result.

Knows neither PaddleHub nor HTTP nor the shell; `hub/`, `server/` and `cli/` adapt it to those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypedDict, overload

import numpy as np

from .config import Pretrained, pretrained
from .engines.base import Engine
from .engines.select import Engines, choose
from .errors import ImageError, RequestError
from .inputs import FilePath, NamedImage, check_count, check_flag, check_texts, named_images
from .preprocessing.image import ImageInput, Preprocess
from .system.prefetch import prefetch
from .text.prompts import (
    Prompts,
    prompts_for,
    require_distinct,
    template_texts,
    warn_of_same_classes,
)
from .text.tokenizer import tokenize, tokenizer_of
from .weights.class_head import Classes, read_classes
from .weights.locate import find
from .weights.weights_file import WeightsFile
from .zero_shot.cached_labels import CachedLabels, LabelTargets
from .zero_shot.label_embeddings import Encode, LabelEmbeddings, Progress
from .zero_shot.scoring import (
    SOFTMAX,
    Answer,
    Nearest,
    ScoreKind,
    Scoring,
    check_score_kind,
    l2_normalize,
    nearest_label,
    top_k_labels,
)
from .zero_shot.thresholds import GivenThresholds, Thresholds, read_given, values_of

if TYPE_CHECKING:
    from .models.clip import CLIP

_PROMPTS_AT_ONCE = 128  # mostly a few tokens long


class Embeddings(TypedDict):
    """Of images and of texts, float32 [n, d] each; None for what was not given, which the caller knows."""

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
    """How a module is loaded, see `Predictor`; it travels whole to wherever a predictor is made."""

    weights: str | Path | None = None
    exif_rotation: bool = False
    fast_jpeg: bool = False
    engine: str = "auto"
    precision: str = "float32"

    def predictor(self, record: Pretrained, module_dir: Path | None = None) -> Predictor:
        """A module's predictor with these options."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        return Predictor(record, module_dir=module_dir, **chosen)


@dataclass(frozen=True)
class _Loaded:
    """What a predictor holds once its weights are there."""

    weights: WeightsFile
    engines: Engines
    label_embeddings: LabelEmbeddings
    classes: Classes | None


class Predictor:
    """A module's model with everything around it. Nothing is read before the first call needs it.

    Args:
        record: the module, by its name or its record.
        weights: a weights file, or the tag of published ones; None is the module's own, looked for in the
            module, the cache, and then downloaded.
        module_dir: the module's own folder, which may carry its weights.
        exif_rotation: turn images as their EXIF tag says, which the reference does not.
        fast_jpeg: decode large JPEG photographs at a fraction of their size, see `Preprocess`.
        engine: what multiplies the matrices on the CPU: "onnxruntime", "openvino" or "paddle"; or
            "auto", which is the fastest of those installed.
        precision: what it computes in: "float32", or "bfloat16" or, of the image encoder's layers, "int8",
            where the CPU has that and OpenVINO is installed. Features are float32 in any case, and so is all
            that runs on a GPU.

    Raises:
        RequestError: there is no such module, or the engine or the precision is not to be had here.

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
        self.record = pretrained(record) if isinstance(record, str) else record
        self.module_dir = module_dir
        self.options = PredictorOptions(weights, exif_rotation, fast_jpeg, engine, precision)
        self._lock = Lock()
        self._loaded: _Loaded | None = None

    def with_options(self, **changes: Any) -> Predictor:
        """Another predictor of the same module, with some of its `PredictorOptions` changed."""
        return replace(self.options, **changes).predictor(self.record, self.module_dir)

    def _load(self) -> _Loaded:
        """Find and load the weights, once."""
        with self._lock:
            if self._loaded is None:
                weights = find(self.record, self.options.weights, self.module_dir)
                embed_dim = self.record.config.embed_dim
                classes = read_classes(weights.path, embed_dim)
                if classes:
                    weights.require_unchanged()
                self._loaded = _Loaded(
                    weights,
                    Engines(weights, self._choice),
                    LabelEmbeddings(weights.identity, embed_dim, self._choice.precision),
                    classes,
                )
            return self._loaded

    @property
    def weights_sha256(self) -> str:
        """By which what is computed from the weights is known, see `WeightsFile.identity`."""
        return self._load().weights.identity

    @cached_property
    def preprocess(self) -> Preprocess:
        """How images are prepared for these weights."""
        record, options = self._load().weights.record, self.options
        size = record.config.image_resolution
        return Preprocess(size, record.preprocessing, options.exif_rotation, options.fast_jpeg)

    @property
    def model(self) -> CLIP:
        """The model itself, a `paddle.nn.Layer`."""
        return self._load().engines.model

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by: the factor itself, not its logarithm."""
        return self._load().engines.logit_scale

    def engine(self, use_gpu: bool = False) -> Engine:
        """What runs the model on the CPU, or on the GPU.

        Raises:
            RequestError: a GPU is asked for that this Paddle, or this machine, does not have.
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
        """Tell which labels fit each image (zero-shot classification, paper section 3.1).

        Args:
            images: PIL images, HWC BGR arrays, or encoded bytes. Arrays usually are uint8; for other types
                see `preprocessing/image.py`. A list, or what can be listed: a tuple, set, generator, array,
                or a column of a table. One image is a list of one.
            paths: image files, one or several. Their answers follow those of `images`.
            labels: what to choose from; left out, the module's default set.
            templates: one prompt template with `{}` for the label, several, or the name of a set:
                "openai" (80), "openai7", "zh" (in Chinese). Several are normalised and averaged. Left
                out with labels given, each label is used as it stands.
            batch_size: images prepared and passed to the engine at once; a compiled engine divides them.
            use_gpu: run on the GPU.
            top_k: how many labels to return; more than there are means all. With thresholds, at most so
                many.
            scores: "softmax" over all labels, 0..1, which compares them; or "cosine" of image and label,
                -1..1, by which several or none may be true. Left out: softmax, or what a file of thresholds
                is of.
            thresholds: the score from which a label is true; labels below are left out of the answer. One
                number for all labels; one for each, in their order or as {label: number}; or a file that
                `clip-hub evaluate --thresholds` wrote, which also brings labels and templates where they are
                left out.

        Returns:
            One list per image of {"label": str, "score": float}, best first. With thresholds an empty list
            is "none of these": no label reaches its threshold.

        Raises:
            ImageError: an image cannot be read; the message names its index or path.
            LabelError: labels or templates cannot be used.
            WeightsError: the weights cannot be had, or do not fit.
            RequestError: an argument makes no sense, or a file of thresholds is of another model.

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
        prompts, scoring = self.question(labels, templates, scores, thresholds)
        targets = self.label_targets(prompts, use_gpu)
        features = self._all_features(named, batch_size, use_gpu)
        return [self.top_k_labels(feature, targets, prompts.labels, top_k, scoring) for feature in features]

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
        """Embeddings of images and texts, in one space.

        Args:
            images: as for `classify`.
            paths: image files, one or several. Their embeddings follow those of `images`.
            texts: texts of up to as many tokens as the model reads (77, or 52 in Chinese), one or
                several.
            batch_size: images or texts passed to the engine at once; a compiled engine divides them.
            use_gpu: run on the GPU.
            normalize: scale embeddings to unit length, so that their product is the cosine.

        Returns:
            {"images": float32 [n, d] or None, "texts": float32 [m, d] or None}.

        Raises:
            ImageError: an image cannot be read; the message names its index or path.
            LabelError: a text cannot be used.
            WeightsError: the weights cannot be had, or do not fit.
            RequestError: an argument makes no sense.

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
        """Features of images, batch by batch, in order, see `encode_images`."""
        return encode_images(self._engine_for(batch_size, use_gpu), self.prepare, images, batch_size)

    def prepare(self, image: NamedImage) -> np.ndarray | ImageError:
        """What the model sees of an image, float32 [3, R, R]; where it cannot be read, the error."""
        name, source = image
        try:
            return self.preprocess.pixels(source, name)
        except ImageError as error:
            return error

    def encode_image(self, pixels: np.ndarray, use_gpu: bool = False) -> np.ndarray:
        """Prepared images, float32 [N, 3, R, R], to features, float32 [N, d], not normalised."""
        return self.engine(use_gpu).encode_image(pixels)

    def tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Token ids, int64 [n, context_length]; raises `LabelError` for a text that is too long."""
        text = self.record.config.text
        return tokenize(texts, text.context_length, tokenizer=tokenizer_of(text))

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of all texts together, with the start and the end of each; raises as `tokenize` does."""
        end = tokenizer_of(self.record.config.text).end
        ids = self.tokenize(texts)
        return int((ids.shape[1] - (ids[:, ::-1] == end).argmax(axis=1)).sum())

    def text_features(self, texts: Sequence[str], batch_size: int = 32, use_gpu: bool = False) -> np.ndarray:
        """Features of texts, float32 [n, d], not normalised; equal texts are computed once."""
        return self._encode_texts(self._engine_for(batch_size, use_gpu), texts, batch_size)

    def _encode_texts(self, engine: Engine, texts: Sequence[str], batch_size: int) -> np.ndarray:
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

    def prompts(self, labels: Iterable[str] | None, templates: str | Iterable[str] | None) -> Prompts:
        """What a call's labels and templates mean, see `prompts_for`; for adapted weights, their classes.

        Raises:
            LabelError: labels or templates cannot be used.
        """
        asked = prompts_for(self.record, labels, templates)  # before weights are looked for
        classes = self._load().classes
        if classes is not None:
            chosen = classes.names if labels is None else asked.labels
            asked = Prompts(chosen, () if templates is None and classes.have(chosen) else asked.templates)
        if labels is not None and asked.templates:
            require_distinct(asked.labels, self.record.config.text)
        return asked

    def question(
        self,
        labels: Iterable[str] | None,
        templates: str | Iterable[str] | None,
        scores: ScoreKind | None = None,
        thresholds: GivenThresholds | None = None,
    ) -> tuple[Prompts, Scoring]:
        """What a call compares its images with, and how it scores that; arguments as of `classify`.

        Raises:
            LabelError: labels or templates cannot be used.
            RequestError: scores or thresholds cannot be used, or are of another model.
        """
        given = read_given(thresholds)
        kind = check_score_kind(scores)
        if not isinstance(given, Thresholds):
            prompts = self.prompts(labels, templates)
            return prompts, Scoring(kind, None if given is None else values_of(given, prompts.labels, kind))
        given.require_module(self.record.name)  # before weights are looked for
        given.require_weights(self.weights_sha256)
        if scores not in (None, given.scores):
            raise RequestError(f"thresholds are of {given.scores} scores: leave scores={kind!r} out")
        asked = self.prompts(list(given.values) if labels is None else labels, given.templates or templates)
        if (templates is not None and template_texts(templates) != given.templates) or (
            asked.templates != given.templates
        ):
            raise RequestError(
                f"thresholds are of the templates {list(given.templates)}: leave other templates out, or fit "
                "thresholds to yours with `evaluate --thresholds`"
            )
        return asked, Scoring(given.scores, values_of(given, asked.labels, given.scores))

    def class_prompts(self, classes: Sequence[str], templates: str | Iterable[str] | None = None) -> Prompts:
        """The prompts of a data set's classes, whose names need not be distinct.

        Templates left out are the module's; or none, for classes that travel with the weights.
        """
        own = self._load().classes
        if templates is None and not (own and own.have(classes)):
            templates = self.record.default_templates
        if templates is not None:
            warn_of_same_classes(tuple(classes), self.record.config.text)
        return Prompts(tuple(classes), template_texts(templates))

    def known_label_targets(self, prompts: Prompts) -> LabelTargets | None:
        """See `label_targets`, if the embeddings are there, so that no text needs to be encoded."""
        loaded = self._load()
        if not prompts.templates and loaded.classes:
            return self.label_targets(prompts)
        return loaded.label_embeddings.find(prompts)

    def label_targets(
        self,
        prompts: Prompts,
        use_gpu: bool = False,
        on_progress: Progress | None = None,
        encode: Encode | None = None,
    ) -> LabelTargets:
        """What images are compared with: `label_embeddings`, and the cache if the weights have one."""
        embeddings = self.label_embeddings(prompts, use_gpu, on_progress, encode)
        classes = self._load().classes
        if prompts.templates or classes is None or classes.cache is None:
            return embeddings
        keys = classes.cache.by_class()
        own_keys = tuple(keys[place] for place in classes.places(prompts.labels))
        return CachedLabels(embeddings, own_keys, classes.cache.strength)

    def label_embeddings(
        self,
        prompts: Prompts,
        use_gpu: bool = False,
        on_progress: Progress | None = None,
        encode: Encode | None = None,
    ) -> np.ndarray:
        """One embedding per label, float32 [labels, d]; see `LabelEmbeddings.of` and `Classes`.

        Args:
            prompts: labels and templates.
            use_gpu: run on the GPU.
            on_progress: see `LabelEmbeddings.of`.
            encode: texts to features, in place of the text tower at once.
        """
        loaded = self._load()
        if not prompts.templates and loaded.classes:
            return loaded.classes.vectors[loaded.classes.places(prompts.labels)]

        def at_once(texts: Sequence[str]) -> np.ndarray:
            return self.text_features(texts, _PROMPTS_AT_ONCE, use_gpu)

        return loaded.label_embeddings.of(prompts, encode or at_once, on_progress)

    def top_k_labels(
        self,
        feature: np.ndarray,
        targets: LabelTargets,
        labels: Sequence[str],
        top_k: int,
        scoring: Scoring = SOFTMAX,
    ) -> Answer:
        """An image's best labels, from its feature [d] and what it is compared with."""
        return top_k_labels(feature, targets, self.logit_scale, labels, top_k, scoring)

    def nearest_label(
        self, feature: np.ndarray, targets: LabelTargets, labels: Sequence[str], scoring: Scoring
    ) -> Nearest:
        """What came nearest to its threshold, where no label reaches its own."""
        return nearest_label(feature, targets, self.logit_scale, labels, scoring)


def encode_images(
    engine: Engine,
    prepare: Callable[[NamedImage], np.ndarray | ImageError],
    images: Iterable[NamedImage],
    batch_size: int,
) -> Iterator[list[np.ndarray | ImageError]]:
    """Features of images, which are prepared in threads while the model runs.

    Yields:
        For each batch, in order, a list of features, float32 [d] not normalised; where an image cannot be
        read, the error.
    """
    batch: list[np.ndarray | ImageError] = []
    for prepared in prefetch(prepare, images, batch_size):
        batch.append(prepared)
        if len(batch) == batch_size:
            yield _encode_readable(engine, batch)
            batch = []
    if batch:
        yield _encode_readable(engine, batch)


def _encode_readable(engine: Engine, batch: list[np.ndarray | ImageError]) -> list[np.ndarray | ImageError]:
    """Run the images of a batch that could be read; errors keep their places."""
    pixels = [item for item in batch if isinstance(item, np.ndarray)]
    features = iter(engine.encode_image(np.stack(pixels)) if pixels else ())
    return [next(features) if isinstance(item, np.ndarray) else item for item in batch]
