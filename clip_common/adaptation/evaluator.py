"""Evaluate weights on held-out images, and on a reference data set of another kind."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from ..engines.image_batching import encode_images
from ..engines.paddle_engine import PaddleEngine
from ..errors import ImageError, RequestError
from ..evaluation.evaluate import image_features
from ..evaluation.labelled import Labelled
from ..evaluation.metrics import retrieval_recall
from ..models.clip import CLIP
from ..predictor import Predictor
from ..text.prompts import Prompts
from ..trainer.checkpoint import Arrays, model_arrays
from ..zero_shot.label_embeddings import compute_label_embeddings
from ..zero_shot.scoring import l2_normalize
from .dataset import Dataset

_Features = tuple[np.ndarray, np.ndarray]


class Evaluator:
    """Evaluates weights of one module; called with the trained arrays.

    Args:
        predictor: the module before adaptation.
        model: its model, which is overwritten with the weights to evaluate.
        held_out: images that are not used for training.
        held_out_features: their features if the image tower is locked; None if it was trained.
        reference: images of another kind, with their classes; or None.
        batch_size: number of images at once.
    """

    def __init__(
        self,
        predictor: Predictor,
        model: CLIP,
        held_out: Dataset,
        held_out_features: np.ndarray | None,
        reference: Labelled | None,
        batch_size: int,
    ) -> None:
        self._predictor, self._model, self._batch_size = predictor, model, batch_size
        self._engine = PaddleEngine(model)
        self._held_out = held_out
        self._reference = reference
        self._locked = held_out_features is not None
        self._known: dict[int, _Features] = {}
        if held_out_features is not None:
            self._known[id(held_out)] = held_out_features, np.arange(len(held_out_features))
            if reference:
                features, kept, _ = image_features(predictor, reference.images, batch_size)
                self._known[id(reference)] = features, kept
        self.before = self._trained_before()

    def _trained_before(self) -> Arrays:
        """What is trained, as it was: of classes, their embeddings are those of their names."""
        arrays = model_arrays(self._model)
        tower = {name: value for name, value in arrays.items() if name.startswith("visual.")}
        if self._locked:
            arrays = {name: value for name, value in arrays.items() if name not in tower}
            tower = {}
        if self._held_out.captioned:
            return arrays
        prompts = self._predictor.labels.class_prompts(self._held_out.texts)
        return tower | {"classes": self._predictor.labels.embeddings(prompts)}

    def __call__(self, arrays: Arrays) -> tuple[float, float | None]:
        """The share of right answers, held out and on the reference, 0 to 1; recall at 1 for captions."""
        state = self._model.state_dict()
        for name, value in arrays.items():
            if name in state:
                state[name].set_value(value)
        own = self._held_out
        held_out = self._recall() if own.captioned else self._accuracy(arrays["classes"], own)
        return held_out, self._zero_shot(self._reference) if self._reference else None

    def _accuracy(self, embeddings: np.ndarray, data: Dataset | Labelled) -> float:
        features, kept = self._features(data)
        return float(((features @ embeddings.T).argmax(axis=1) == data.targets[kept]).mean())

    def _recall(self) -> float:
        """The mean of both directions, among the held-out images and their captions."""
        features, kept = self._features(self._held_out)
        targets, columns = np.unique(self._held_out.targets[kept], return_inverse=True)
        texts = l2_normalize(self._encode_text([self._held_out.texts[target] for target in targets]))
        similarity = features @ texts.T  # images captions
        names = [self._held_out.images[row][0] for row in kept]
        relevant = np.zeros(similarity.shape, bool)
        of_image: dict[str, list[int]] = {}
        for name, column in zip(names, columns, strict=True):
            of_image.setdefault(name, []).append(column)
        for row, name in enumerate(names):
            relevant[row, of_image[name]] = True
        directions = ((similarity, relevant), (similarity.T, relevant.T))
        return float(np.mean([retrieval_recall(scores, right, 1) for scores, right in directions]))

    def _zero_shot(self, data: Labelled) -> float:
        prompts = Prompts(tuple(data.classes), self._predictor.record.default_templates)
        if self._held_out.captioned:
            embeddings = compute_label_embeddings(prompts, self._encode_text)
        else:  # the text tower is as it was, so they are computed once
            embeddings = self._predictor.labels.embeddings(prompts)
        return self._accuracy(embeddings, data)

    def _encode_text(self, texts: Sequence[str]) -> np.ndarray:
        return self._engine.encode_text(self._predictor.tokenize(texts), self._batch_size)

    def _features(self, data: Dataset | Labelled) -> _Features:
        """Unit features of the images that can be read, and their rows."""
        if id(data) in self._known:
            return self._known[id(data)]
        batches = encode_images(self._engine, self._predictor.prepare, data.images, self._batch_size)
        items = list(chain.from_iterable(batches))
        read = {row: item for row, item in enumerate(items) if not isinstance(item, ImageError)}
        if not read:
            raise RequestError(f"no image can be read; the first: {next(iter(items), 'there is none')}")
        return l2_normalize(np.stack(list(read.values()))), np.array(list(read))
