"""One module's work, from pictures and texts to answers: preprocess or tokenize, engine, result.

Knows neither PaddleHub nor HTTP nor the shell; `hub.py`, `request.py` and `command.py` adapt it to those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from .config import Pretrained
from .engines.base import Engine
from .engines.select import Engines, choose
from .errors import ImageError, RequestError
from .preprocessing.image import Picture, Preprocess
from .system.prefetch import ahead
from .text.prompts import Prompts, prompts_for, template_texts
from .text.tokenizer import tokenize
from .weights.class_head import Classes, read_classes
from .weights.locate import find
from .zero_shot.label_embeddings import LabelVectors, Progress
from .zero_shot.scoring import Answer, rank, unit_length

NamedPicture = tuple[str, Picture | str | Path]
_PROMPTS_AT_ONCE = 128  # mostly a few tokens long


@dataclass(frozen=True)
class Loaded:
    """What a predictor holds once its weights are there."""

    weights_sha256: str
    engines: Engines
    label_vectors: LabelVectors
    classes: Classes | None


class Predictor:
    """A module's model with everything around it. Nothing is read before the first call needs it.

    Args:
        record: the module.
        weights: a weights file; None looks in the module, the cache, and then downloads.
        module_dir: the module's own folder, which may carry its weights.
        exif_rotation: turn pictures as their EXIF tag says, which the reference does not.
        fast_jpeg: decode large JPEG photographs at a fraction of their size, see `Preprocess`.
        engine: what multiplies the matrices on the processor: "onnxruntime", "openvino" or "paddle"; or
            "auto", which is the fastest of those installed.
        precision: what it computes in: "float32", or "bfloat16" where the processor has that and OpenVINO is
            installed. Features are float32 in any case, and so is all that runs on a GPU.

    Raises:
        RequestError: the engine or the precision is not to be had here.
    """

    def __init__(
        self,
        record: Pretrained,
        weights: str | Path | None = None,
        module_dir: Path | None = None,
        exif_rotation: bool = False,
        engine: str = "auto",
        precision: str = "float32",
        fast_jpeg: bool = False,
    ) -> None:
        self._choice = choose(engine, precision)  # a wrong name is an error here, not at the first call
        self.record = record
        self.engine = engine
        self.preprocess = Preprocess(
            record.config.image_resolution, record.preprocessing, exif_rotation, fast_jpeg
        )
        self.module_dir = module_dir
        self.weights = weights
        self._lock = Lock()
        self._loaded: Loaded | None = None

    def like(self, **changes: Any) -> Predictor:
        """Another predictor of the same module, with some of the arguments changed."""
        own = {
            "weights": self.weights,
            "module_dir": self.module_dir,
            "exif_rotation": self.preprocess.exif_rotation,
            "engine": self.engine,
            "precision": self._choice.precision,
            "fast_jpeg": self.preprocess.fast_jpeg,
        }
        return Predictor(self.record, **{**own, **changes})

    def load(self) -> Loaded:
        """Find and load the weights, once."""
        with self._lock:
            if self._loaded is None:
                weights = find(self.record, self.weights, self.module_dir)
                embed_dim = self.record.config.embed_dim
                self._loaded = Loaded(
                    weights.sha256,
                    Engines(self.record, weights, self._choice),
                    LabelVectors(weights.sha256, embed_dim, self._choice.precision),
                    read_classes(weights.path, embed_dim),
                )
            return self._loaded

    # --- the two public calls -------------------------------------------------------------------------

    def classify(
        self,
        images: Sequence[Picture] | None = None,
        paths: Sequence[str | Path] | None = None,
        labels: Sequence[str] | None = None,
        templates: str | Sequence[str] | None = None,
        batch_size: int = 32,
        use_gpu: bool = False,
        top_k: int = 5,
    ) -> list[Answer]:
        """Tell which labels fit each picture (zero-shot classification, paper section 3.1).

        Args:
            images: PIL pictures, HWC BGR uint8 arrays, or encoded bytes.
            paths: picture files. Their answers follow those of `images`.
            labels: what to choose from; left out, the module's default set.
            templates: one prompt template with `{}` for the label, several, or the name of a set:
                "openai" (80), "openai7". Several are normalised and averaged. Left out with labels
                given, each label is used as it stands.
            batch_size: pictures that go through the model at once.
            use_gpu: run on the GPU.
            top_k: how many labels to return; more than there are means all.

        Returns:
            One list per picture of {"label": str, "score": float}, best first. Scores are the softmax
            over all labels, 0..1.

        Raises:
            ImageError: a picture cannot be read; the message names its index or path.
            LabelError: labels or templates cannot be used.
            WeightsError: the weights cannot be had, or do not fit.
            RequestError: an argument makes no sense.
        """
        pictures = named_pictures(images, paths)
        if not pictures:
            raise RequestError("nothing to classify: give images or paths")
        if not _is_count(top_k):
            raise RequestError(f"top_k is {top_k!r}, expected a whole number from 1")
        prompts = self.prompts(labels, templates)
        vectors = self.label_vectors(prompts, use_gpu)
        features = self._all_features(pictures, batch_size, use_gpu)
        return [self.rank(feature, vectors, prompts.labels, top_k) for feature in features]

    def embed(
        self,
        images: Sequence[Picture] | None = None,
        paths: Sequence[str | Path] | None = None,
        texts: Sequence[str] | None = None,
        batch_size: int = 32,
        use_gpu: bool = False,
        normalize: bool = True,
    ) -> dict[str, np.ndarray | None]:
        """Give pictures and texts as vectors of one space.

        Args:
            images: PIL pictures, HWC BGR uint8 arrays, or encoded bytes.
            paths: picture files. Their vectors follow those of `images`.
            texts: texts of up to 77 tokens.
            batch_size: pictures or texts that go through the model at once.
            use_gpu: run on the GPU.
            normalize: scale vectors to unit length, so that their product is the cosine.

        Returns:
            {"images": float32 [n, d] or None, "texts": float32 [m, d] or None}.

        Raises:
            ImageError: a picture cannot be read; the message names its index or path.
            LabelError: a text cannot be used.
            WeightsError: the weights cannot be had, or do not fit.
            RequestError: an argument makes no sense.
        """
        pictures = named_pictures(images, paths)
        texts = None if texts is None else check_texts(texts)
        if not pictures and texts is None:
            raise RequestError("nothing to embed: give images, paths or texts")
        finish = unit_length if normalize else np.asarray
        image_features = self._all_features(pictures, batch_size, use_gpu) if pictures else None
        text_features = None if texts is None else self.text_features(texts, batch_size, use_gpu)
        return {
            "images": None if image_features is None else finish(image_features),
            "texts": None if text_features is None else finish(text_features),
        }

    # --- features -------------------------------------------------------------------------------------

    def image_features(
        self, pictures: Iterable[NamedPicture], batch_size: int = 32, use_gpu: bool = False
    ) -> Iterator[list[np.ndarray | ImageError]]:
        """Features of pictures, batch by batch, in order, see `encode_pictures`."""
        return encode_pictures(self._engine_for(batch_size, use_gpu), self.prepare, pictures, batch_size)

    def prepare(self, picture: NamedPicture) -> np.ndarray | ImageError:
        """What the model sees of a picture, float32 [3, R, R]; where it cannot be read, the error."""
        name, source = picture
        try:
            return self.preprocess(self.preprocess.open(source, name))
        except ImageError as error:
            return error
        except (ValueError, OSError) as error:  # a mode that Pillow cannot convert
            return ImageError(f"{name}: cannot be prepared ({error})")

    def encode_image(self, pixels: np.ndarray, use_gpu: bool = False) -> np.ndarray:
        """Prepared pictures, float32 [N, 3, R, R], to features, float32 [N, d], not normalised."""
        return self.load().engines.get(bool(use_gpu)).encode_image(pixels)

    def tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Token ids, int64 [n, context_length]; raises `LabelError` for a text that is too long."""
        return tokenize(texts, self.record.config.text.context_length)

    def text_features(self, texts: Sequence[str], batch_size: int = 32, use_gpu: bool = False) -> np.ndarray:
        """Features of texts, float32 [n, d], not normalised; equal texts are computed once."""
        return self._encode_texts(self._engine_for(batch_size, use_gpu), texts, batch_size)

    def _encode_texts(self, engine: Engine, texts: Sequence[str], batch_size: int) -> np.ndarray:
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        ids = self.tokenize(list(distinct))
        features = engine.encode_text(ids, batch_size)
        return features[[distinct[text] for text in texts]]

    def _all_features(self, pictures: Sequence[NamedPicture], batch_size: int, use_gpu: bool) -> np.ndarray:
        features = []
        for batch in self.image_features(pictures, batch_size, use_gpu):
            for item in batch:
                if isinstance(item, ImageError):
                    raise item
                features.append(item)
        return np.stack(features)

    def _engine_for(self, batch_size: int, use_gpu: bool) -> Engine:
        if not _is_count(batch_size):
            raise RequestError(f"batch_size is {batch_size!r}, expected a whole number from 1")
        return self.load().engines.get(bool(use_gpu))

    # --- labels ---------------------------------------------------------------------------------------

    def prompts(self, labels: Sequence[str] | None, templates: str | Sequence[str] | None) -> Prompts:
        """What a call's labels and templates mean, see `prompts_for`; for adapted weights, their classes.

        Raises:
            LabelError: labels or templates cannot be used.
        """
        asked = prompts_for(self.record, labels, templates)  # before weights are looked for
        classes = self.load().classes
        if classes is None:
            return asked
        chosen = classes.names if labels is None else asked.labels
        return Prompts(chosen, () if templates is None and classes.have(chosen) else asked.templates)

    def class_prompts(self, classes: Sequence[str], templates: str | Sequence[str] | None = None) -> Prompts:
        """The prompts of a data set's classes, whose names need not be distinct.

        Templates left out are the module's; or none, for classes that travel with the weights.
        """
        own = self.load().classes
        if templates is None and not (own and own.have(classes)):
            templates = self.record.default_templates
        return Prompts(tuple(classes), tuple(template_texts(templates)))

    def label_vectors(
        self,
        prompts: Prompts,
        use_gpu: bool = False,
        on_progress: Progress | None = None,
        known: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """One vector per label, float32 [labels, d]; see `LabelVectors.of` and `Classes`.

        Args:
            prompts: labels and templates.
            use_gpu: run on the GPU.
            on_progress: see `LabelVectors.of`.
            known: features [d] of texts that need not be encoded.
        """
        loaded = self.load()
        if not prompts.templates and loaded.classes:
            return loaded.classes.of(prompts.labels)

        def encode(texts: Sequence[str]) -> np.ndarray:
            if known and all(text in known for text in texts):
                return np.stack([known[text] for text in texts])
            return self._encode_texts(loaded.engines.get(bool(use_gpu)), texts, _PROMPTS_AT_ONCE)

        return loaded.label_vectors.of(prompts, encode, on_progress)

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by: the factor itself, not its logarithm."""
        return self.load().engines.logit_scale

    def rank(
        self, feature: np.ndarray, label_vectors: np.ndarray, labels: Sequence[str], top_k: int
    ) -> Answer:
        """A picture's best labels, from its feature [d] and the labels' vectors."""
        return rank(feature, label_vectors, self.logit_scale, labels, top_k)


def named_pictures(
    images: Sequence[Picture] | None, paths: Sequence[str | Path] | None
) -> list[NamedPicture]:
    """Pictures, each with the name that an error calls it by.

    Raises:
        RequestError: an argument is empty, or is one picture where a list is expected.
    """
    for name, given in (("images", images), ("paths", paths)):
        if given is None:
            continue
        if isinstance(given, (str, bytes, Path, np.ndarray)) or not hasattr(given, "__len__"):
            raise RequestError(f"{name} is a single {type(given).__name__}, expected a list")
        if len(given) == 0:
            raise RequestError(f"{name} is empty: leave it out, or give at least one picture")
    for i, image in enumerate(images or []):
        if isinstance(image, (str, Path)):
            raise RequestError(f"images[{i}] is a path ({str(image)[:60]!r}): files go into paths")
    pictures: list[NamedPicture] = [(f"images[{i}]", image) for i, image in enumerate(images or [])]
    for i, path in enumerate(paths or []):
        if not isinstance(path, (str, Path)):
            raise RequestError(f"paths[{i}] is a {type(path).__name__}, expected a file's path")
        pictures.append((str(path), path))
    return pictures


def check_texts(texts: Sequence[str]) -> list[str]:
    """Texts as given, if they are a list of strings with something in it."""
    if isinstance(texts, str):
        raise RequestError(f"texts is a single string ({texts[:60]!r}), expected a list of strings")
    if len(texts) == 0:
        raise RequestError("texts is empty: leave it out, or give at least one text")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise RequestError(f"texts[{i}] is a {type(text).__name__}, expected a string")
    return list(texts)


def _is_count(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 1)


def encode_pictures(
    engine: Engine,
    prepare: Callable[[NamedPicture], np.ndarray | ImageError],
    pictures: Iterable[NamedPicture],
    batch_size: int,
) -> Iterator[list[np.ndarray | ImageError]]:
    """Features of pictures, which are prepared in threads while the model runs.

    Yields:
        For each batch, in order, a list of features, float32 [d] not normalised; where a picture cannot be
        read, the error.
    """
    batch: list[np.ndarray | ImageError] = []
    for prepared in ahead(prepare, pictures, batch_size):
        batch.append(prepared)
        if len(batch) == batch_size:
            yield _encode_readable(engine, batch)
            batch = []
    if batch:
        yield _encode_readable(engine, batch)


def _encode_readable(engine: Engine, batch: list[np.ndarray | ImageError]) -> list[np.ndarray | ImageError]:
    """Run the pictures of a batch that could be read; errors keep their places."""
    pixels = [item for item in batch if isinstance(item, np.ndarray)]
    features = iter(engine.encode_image(np.stack(pixels)) if pixels else ())
    return [next(features) if isinstance(item, np.ndarray) else item for item in batch]
