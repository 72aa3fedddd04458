"""The labels of a module: the prompts to compare images with, their embeddings, and how they are scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..config import Pretrained
from ..errors import RequestError
from ..text.prompts import (
    Prompts,
    prompts_for,
    require_distinct,
    template_texts,
    warn_of_same_classes,
)
from ..weights.class_head import Classes, read_classes
from ..weights.weights_file import WeightsFile
from .cached_labels import CachedLabels, LabelTargets
from .label_embeddings import Encode, LabelEmbeddings, Progress, warn_of_equal
from .scoring import ScoreKind, Scoring, check_score_kind
from .thresholds import GivenThresholds, Thresholds, read_given, values_of

_PROMPTS_AT_ONCE = 128  # mostly a few tokens long


@dataclass(frozen=True)
class WeightsLabels:
    """What labels depend on in a weights file.

    Attributes:
        weights_sha256: the hash that identifies the weights, see `WeightsFile.identity`.
        computed: label embeddings computed with these weights.
        classes: classes that are stored in the file by `adapt`; None in any other file.
    """

    weights_sha256: str
    computed: LabelEmbeddings
    classes: Classes | None

    @classmethod
    def read(cls, weights: WeightsFile, precision: str) -> WeightsLabels:
        """Read the classes of a weights file, if it has any.

        Raises:
            WeightsError: the classes are damaged, or the file was replaced.
        """
        embed_dim = weights.record.config.embed_dim
        classes = read_classes(weights.path, embed_dim)
        if classes:
            weights.require_unchanged()
        return cls(weights.identity, LabelEmbeddings(weights.identity, embed_dim, precision), classes)


@dataclass(frozen=True)
class Labels:
    """What the images of a module are compared with. It keeps nothing itself.

    Attributes:
        record: the module's record.
        of_weights: finds the weights, at the first call, and returns what labels depend on in them.
        text_features: from texts, a batch size and `use_gpu` to features, float32 [n, d].
    """

    record: Pretrained
    of_weights: Callable[[], WeightsLabels]
    text_features: Callable[[Sequence[str], int, bool], np.ndarray]

    def prompts(self, labels: Iterable[str] | None, templates: str | Iterable[str] | None) -> Prompts:
        """Resolve a call's labels and templates, see `prompts_for`. Adapted weights default to their classes.

        Raises:
            LabelError: invalid labels or templates.
        """
        asked = prompts_for(self.record, labels, templates)  # before weights are looked for
        classes = self.of_weights().classes
        if classes is not None:
            chosen = classes.names if labels is None else asked.labels
            asked = Prompts(chosen, () if templates is None and classes.have(chosen) else asked.templates)
        if labels is not None and asked.templates:
            require_distinct(asked.labels, self.record.config.text)
        return asked

    def class_prompts(self, classes: Sequence[str], templates: str | Iterable[str] | None = None) -> Prompts:
        """Prompts for a data set's classes, whose names need not be distinct.

        Default templates are the module's; none for classes that are stored in the weights file.
        """
        own = self.of_weights().classes
        if templates is None and not (own and own.have(classes)):
            templates = self.record.default_templates
        if templates is not None:
            warn_of_same_classes(tuple(classes), self.record.config.text)
        return Prompts(tuple(classes), template_texts(templates))

    def prompts_and_scoring(
        self,
        labels: Iterable[str] | None,
        templates: str | Iterable[str] | None,
        scores: ScoreKind | None = None,
        thresholds: GivenThresholds | None = None,
    ) -> tuple[Prompts, Scoring]:
        """Resolve the arguments of `classify` to the prompts to compare with and the way to score them.

        Raises:
            LabelError: invalid labels or templates.
            RequestError: invalid scores or thresholds, or thresholds that were fitted to another model.
        """
        given = read_given(thresholds)
        kind = check_score_kind(scores)
        if isinstance(given, Thresholds):
            return self._as_fitted(given, labels, templates, scores)
        prompts = self.prompts(labels, templates)
        return prompts, Scoring(kind, None if given is None else values_of(given, prompts.labels, kind))

    def _as_fitted(
        self,
        fitted: Thresholds,
        labels: Iterable[str] | None,
        templates: str | Iterable[str] | None,
        scores: ScoreKind | None,
    ) -> tuple[Prompts, Scoring]:
        """Prompts and scoring with fitted thresholds: the model, templates and scores must be theirs."""
        fitted.require_module(self.record.name)  # before weights are looked for
        fitted.require_weights(self.of_weights().weights_sha256)
        if scores not in (None, fitted.scores):
            raise RequestError(f"thresholds are for {fitted.scores} scores: leave scores={scores!r} out")
        labels = list(fitted.values) if labels is None else labels
        prompts = self.prompts(labels, fitted.templates or templates)
        if (templates is not None and template_texts(templates) != fitted.templates) or (
            prompts.templates != fitted.templates
        ):
            raise RequestError(
                f"thresholds are for the templates {list(fitted.templates)}: leave other templates out, or "
                "fit thresholds to yours with `evaluate --thresholds`"
            )
        return prompts, Scoring(fitted.scores, values_of(fitted, prompts.labels, fitted.scores))

    def targets(
        self,
        prompts: Prompts,
        use_gpu: bool = False,
        on_progress: Progress | None = None,
        encode: Encode | None = None,
    ) -> LabelTargets:
        """What images are compared with: the label embeddings, plus the image cache of adapted weights.

        Arguments are those of `embeddings`.
        """
        embeddings = self.embeddings(prompts, use_gpu, on_progress, encode)
        classes = self.of_weights().classes
        if prompts.templates or classes is None or classes.cache is None:
            return embeddings
        keys = classes.cache.by_class()
        own_keys = tuple(keys[place] for place in classes.places(prompts.labels))
        return CachedLabels(embeddings, own_keys, classes.cache.strength)

    def known_targets(self, prompts: Prompts) -> LabelTargets | None:
        """As `targets`, but None where a text would have to be encoded first."""
        there = self.of_weights()
        if not prompts.templates and there.classes:
            return self.targets(prompts)
        return there.computed.find(prompts)

    def embeddings(
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
            encode: function from texts to features, float32 [n, d]; default: the text tower.
        """
        there = self.of_weights()
        if not prompts.templates and there.classes:
            return there.classes.vectors[there.classes.places(prompts.labels)]

        def at_once(texts: Sequence[str]) -> np.ndarray:
            return self.text_features(texts, _PROMPTS_AT_ONCE, use_gpu)

        embeddings = there.computed.of(prompts, encode or at_once, on_progress)
        warn_of_equal(self.record.name, prompts.labels, embeddings)
        return embeddings
