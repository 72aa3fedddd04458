"""Score thresholds of labels: the forms that callers may pass, and the file of fitted thresholds.

`evaluate --thresholds` writes the file. It records the weights, templates and kind of score that the values
were fitted to, because they are meaningless for any other model.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LabelError, RequestError
from ..system.file_names import user_path
from ..system.output import write_text
from ..system.text_files import decode, read_bytes
from ..system.words import counted
from ..text.prompts import check_labels
from .scoring import ScoreKind, check_score_kind

FORMAT = "clip-hub thresholds 1"
_LOWEST: dict[ScoreKind, float] = {"softmax": 0.0, "cosine": -1.0}
_NAME = "thresholds"
_REMEDY = "scores of two models are not on one scale; fit thresholds to this one with `evaluate --thresholds`"


@dataclass(frozen=True)
class Thresholds:
    """Thresholds that were fitted to one model, as read from their file.

    Attributes:
        module: the module that they were fitted with.
        weights_sha256: its weights, see `Predictor.weights_sha256`.
        templates: prompt templates of the labels; empty for classes that are stored in the weights file.
        scores: the kind of score.
        values: the minimum score of each label.
    """

    module: str
    weights_sha256: str
    templates: tuple[str, ...]
    scores: ScoreKind
    values: dict[str, float]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Thresholds:
        """Read a thresholds file.

        Raises:
            RequestError: it cannot be read, or is not a thresholds file.
        """
        file = user_path(os.fspath(path))
        try:
            document = json.loads(decode(read_bytes(file), str(file)))
        except (ValueError, RecursionError) as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError(
                f"{file}: not JSON ({error}): give a file of `evaluate --thresholds`"
            ) from None
        return cls.of_document(document, str(file))

    @classmethod
    def of_document(cls, document: Any, name: str = _NAME) -> Thresholds:
        """Parse the decoded JSON of a thresholds file.

        Args:
            document: the decoded JSON.
            name: its name in error messages.

        Raises:
            RequestError: the document is invalid; the message says where.
        """
        if not is_document(document):
            raise RequestError(f"{name}: not a file of thresholds: `evaluate --thresholds` writes one")
        if document["format"] != FORMAT:
            raise RequestError(f"{name}: its format is {document['format'][:60]!r}, expected {FORMAT!r}")
        module, sha256, templates, labels = (
            _field(document, key, kind, name)
            for key, kind in (("module", str), ("weights_sha256", str), ("templates", list), ("labels", dict))
        )
        if not all(isinstance(template, str) and "{}" in template for template in templates):
            raise RequestError(f"{name}: its templates must be texts with {{}} in them")
        kind = check_score_kind(_field(document, "scores", str, name))
        try:
            check_labels(labels)
        except LabelError as error:
            raise RequestError(f"{name}: {error}") from None
        values = {}
        for label, fitted in labels.items():
            value = fitted.get("threshold") if isinstance(fitted, dict) else None
            values[label] = _number(f"{name}: the threshold of {label[:60]!r}", value, kind)
        return cls(module, sha256, tuple(templates), kind, values)

    def document(
        self,
        about: Mapping[str, Any] | None = None,
        figures: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """The content of the file as JSON values; `of_document` is the inverse.

        Args:
            about: additional fields of the document, for human readers.
            figures: additional fields of each label, for human readers.
        """
        return {
            "format": FORMAT,
            "module": self.module,
            "weights_sha256": self.weights_sha256,
            "templates": list(self.templates),
            "scores": self.scores,
            **(about or {}),
            "labels": {
                label: {"threshold": value, **(figures or {}).get(label, {})}
                for label, value in self.values.items()
            },
        }

    def write(
        self,
        path: Path,
        about: Mapping[str, Any] | None = None,
        figures: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Write the file, see `document`."""
        text = json.dumps(self.document(about, figures), indent=1, ensure_ascii=False)
        write_text(path, text + "\n")

    def require_module(self, module: str) -> None:
        """Check that they were fitted to this module; `require_weights` checks the weights.

        Raises:
            RequestError: they were fitted to another module.
        """
        if self.module != module:
            raise RequestError(f"thresholds are for {self.module}, and this is {module}: {_REMEDY}")

    def require_weights(self, weights_sha256: str) -> None:
        """Check that they were fitted to these weights.

        Raises:
            RequestError: they were fitted to others.
        """
        if self.weights_sha256 != weights_sha256:
            raise RequestError(
                f"thresholds are for {self.module} with the weights {self.weights_sha256[:12]}, and these "
                f"are {weights_sha256[:12]}: {_REMEDY}"
            )


GivenThresholds = (
    float | Sequence[float] | np.ndarray | Mapping[str, float] | Thresholds | str | os.PathLike[str]
)
"""Thresholds as a caller passes them: one number for all labels; one per label, in order or by label; or the
path or content of a file that `evaluate --thresholds` wrote."""


def is_document(given: object) -> bool:
    """Whether this is the content of a thresholds file, and not a mapping of labels to numbers."""
    return isinstance(given, dict) and isinstance(given.get("format"), str)


def read_given(given: Any) -> Any:
    """Convert a path or the content of a thresholds file to `Thresholds`; return other forms unchanged.

    Raises:
        RequestError: the file cannot be read or is invalid.
    """
    if isinstance(given, (str, os.PathLike)):
        return Thresholds.read(given)
    return Thresholds.of_document(given) if is_document(given) else given


def values_of(given: Any, labels: Sequence[str], kind: ScoreKind) -> np.ndarray:
    """One threshold per label, float64 [labels], from any form except a path.

    Raises:
        RequestError: a label has no threshold, there are too few or too many, or one is out of range.
    """
    if isinstance(given, Thresholds):
        given = given.values
    if getattr(given, "ndim", None) == 0:
        given = given.item()
    if isinstance(given, Mapping):
        missing = next((label for label in labels if label not in given), None)
        if missing is not None:
            raise RequestError(f"{_NAME} has none for the label {missing!r}: give one for each label")
        return np.array([_number(f"{_NAME}[{label[:60]!r}]", given[label], kind) for label in labels])
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes, set, frozenset)):
        numbers = [_number(f"{_NAME}[{i}]", value, kind) for i, value in enumerate(given)]
        if len(numbers) != len(labels):
            raise RequestError(
                f"{_NAME} has length {len(numbers)}, for {counted(len(labels), 'label')}: give one number "
                "for each, in their order, or one for all"
            )
        return np.array(numbers)
    return np.full(len(labels), _number(_NAME, given, kind))


def _number(name: str, value: Any, kind: ScoreKind) -> float:
    """Validate one threshold: a number in the range of this kind of score."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not real or not _LOWEST[kind] <= value <= 1:
        raise RequestError(
            f"{name} is {_shown(value)}, expected a number from {_LOWEST[kind]:g} to 1, as {kind} scores are"
        )
    return float(value)


def _shown(value: Any) -> str:
    if isinstance(value, (float, np.floating)) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) > 1e9:
        return "a huge number"  # Python refuses to print the longest
    return f"{value!r:.60}"


def _field(document: Mapping[str, Any], key: str, kind: type, name: str) -> Any:
    if not isinstance(document.get(key), kind):
        raise RequestError(f"{name}: {key!r} is missing or not as `evaluate --thresholds` writes it")
    return document[key]
