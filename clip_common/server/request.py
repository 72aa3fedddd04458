"""The JSON body of `POST /predict/<module>`, and the checked request that it is converted to.

No part of a body is ever opened as a path or fetched as an address.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, WithJsonSchema

from ..errors import RequestError
from ..inputs import NamedImage, named_images
from ..system.secrets import hide_secrets
from ..text.prompts import Prompts, template_texts
from ..zero_shot.scoring import ScoreKind
from ..zero_shot.thresholds import Thresholds, read_given
from .json_body import JsonBody
from .limits import Limits

_MOST_AT_ONCE = 64
MOST_EXPLAINED = 10
"""Maximum number of heat maps per request."""
FEW_TEXTS, FEW_IMAGES = 256, 16
"""Maximum numbers of texts (or prompts) and images of a small request."""
_DEFAULT_LABELS = 1_000  # approximate number
_DATA_URL = re.compile(r"\s*data:([^,]{0,200}),", re.IGNORECASE)
_ADDRESS = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]{0,20}://")
_LONGEST_ADDRESS = 2000  # characters that are looked at to show some
_URL_SAFE = str.maketrans("-_", "+/")
_SCORES = (
    "`softmax` over all labels, 0 to 1; or `cosine` of image and label, -1 to 1, independent of the other "
    "labels. Default: `softmax`, or the kind that a file of thresholds says"
)
_EXPLAIN = (
    "number of labels, from the best, to return with a heat map: `heat`, R rows of R numbers over the input "
    "of the model, each the change of the label's log odds when that pixel is visible; and `heat_of`, which "
    "is `centre` if that input is the central square of the image, or `whole` if it is the whole image. "
    "Requires exactly one image, and costs as much as classifying 256 images"
)
_THRESHOLDS = {
    "description": "the score that a label must reach: one number for all labels; one per label, in the "
    "order of the labels or as {label: number}; or the content of a file that `clip-hub evaluate "
    "--thresholds` wrote, which also provides labels, templates and scores. The result of an image for which "
    "no label reaches its threshold is []",
    "anyOf": [
        {"type": "number"},
        {"type": "array", "items": {"type": "number"}},
        {"type": "object"},
        {"type": "null"},
    ],
}

NameOf = Callable[[str, int], str]
"""From a field of `RequestBody` and an index to the name of that item in error messages."""


@dataclass(frozen=True)
class PredictRequest:
    """A checked request, ready for a predictor.

    Attributes:
        limits: the limits that it was checked against, for checks that need the model.
        thresholds: as `Predictor.classify` takes them, but never a path.
        explain: number of labels to return with a heat map.
        count_tokens: add the number of tokens of the texts to the results.
    """

    task: Literal["classify", "embed"]
    images: list[NamedImage]
    texts: list[str] | None
    labels: list[str] | None
    templates: str | list[str] | None
    top_k: int
    batch_size: int
    normalize: bool
    use_gpu: bool
    limits: Limits
    scores: ScoreKind | None = None
    thresholds: Any = None
    explain: int = 0
    count_tokens: bool = False

    @property
    def kind(self) -> Literal["small", "texts", "images", "explain"]:
        """What dominates the cost. Requests queue by kind, so that long ones delay only their own kind."""
        if self.explain:
            return "explain"
        texts = len(self.texts or ())
        labels, templates = self.labels, template_texts(self.templates)
        if isinstance(self.thresholds, Thresholds):
            labels, templates = labels or list(self.thresholds.values), self.thresholds.templates
        if self.task == "classify" and (labels is not None or templates):
            texts = (_DEFAULT_LABELS if labels is None else len(labels)) * max(1, len(templates))
        if texts > FEW_TEXTS:
            return "texts"
        return "images" if len(self.images) > FEW_IMAGES else "small"

    def with_default(self, thresholds: Thresholds | None) -> PredictRequest:
        """A copy with the server's thresholds, if the request has no labels, scores or thresholds."""
        asked = (self.labels, self.templates, self.scores, self.thresholds)
        if self.task == "classify" and thresholds is not None and all(given is None for given in asked):
            return replace(self, thresholds=thresholds)
        return self

    def on_gpu(self) -> PredictRequest:
        """A copy that runs on the GPU."""
        return replace(self, use_gpu=True)


class RequestBody(JsonBody):
    """The JSON body of `POST /predict/<module>`."""

    images: list[StrictStr] | None = None
    """Image files in base64."""
    labels: list[StrictStr] | None = None
    templates: StrictStr | list[StrictStr] | None = None
    texts: list[StrictStr] | None = None
    task: Literal["classify", "embed"] | None = None
    """Default: `embed` if there are texts, else `classify`."""
    top_k: StrictInt = Field(5, ge=1)
    scores: ScoreKind | None = Field(None, description=_SCORES)
    thresholds: Annotated[Any, WithJsonSchema(_THRESHOLDS)] = None
    explain: StrictInt | None = Field(None, ge=1, le=MOST_EXPLAINED, description=_EXPLAIN)
    batch_size: StrictInt = Field(32, ge=1)
    normalize: StrictBool = True
    use_gpu: StrictBool = False

    def work(self, limits: Limits, name_of: NameOf = "{}[{}]".format) -> PredictRequest:
        """Convert the body to a request: check its limits, and decode its images from base64.

        Args:
            limits: limits of a request.
            name_of: names of items in error messages.

        Raises:
            ClipError: the body is invalid or exceeds a limit; the message names the field.
        """
        thresholds = self._thresholds(limits)
        self._keep_to(limits, name_of)
        return PredictRequest(
            task=self._task(),
            images=self._images(limits, name_of),
            texts=self.texts,
            labels=self.labels,
            templates=self.templates,
            top_k=self.top_k,
            batch_size=min(self.batch_size, _MOST_AT_ONCE),
            normalize=self.normalize,
            use_gpu=self.use_gpu,
            limits=limits,
            scores=self.scores,
            thresholds=thresholds,
            explain=self.explain or 0,
        )

    def _task(self) -> Literal["classify", "embed"]:
        """The task; raises `RequestError` if its fields are missing, or others are there."""
        task = self.task or ("embed" if self.texts is not None else "classify")
        if task == "classify":
            self._refuse(task, "texts")
            if self.images is None:
                raise RequestError("nothing to classify: give images, or texts to embed")
            if self.explain and len(self.images) > 1:
                raise RequestError(
                    f"field 'explain' needs exactly one image, and there are {len(self.images)}: send each "
                    "in its own request"
                )
        else:
            self._refuse(task, "labels", "templates", "scores", "thresholds", "explain")
            if self.images is None and self.texts is None:
                raise RequestError("nothing to embed: give images or texts")
        return task

    def _refuse(self, task: str, *fields: str) -> None:
        given = [field for field in fields if getattr(self, field) is not None]
        if given:
            raise RequestError(
                f"field '{given[0]}' does not go with the task {task!r}: leave one of them out"
            )

    def _keep_to(self, limits: Limits, name_of: NameOf) -> None:
        """Check the limits that do not need anything decoded."""
        limits.check_count("pictures", len(self.images or ()))
        limits.check_count("labels", len(self.labels or ()))
        limits.check_count("texts", len(self.texts or ()))
        templates = template_texts(self.templates)
        limits.check_count("templates", len(templates))
        given = [self.templates] if isinstance(self.templates, str) else self.templates
        for field, texts in (("labels", self.labels), ("templates", given), ("texts", self.texts)):
            for i, text in enumerate(texts or ()):
                limits.check_characters(name_of(field, i), text)
        if self.labels:  # default labels are checked later, when they are known
            limits.check_prompts(Prompts(tuple(self.labels), tuple(templates) or ("{}",)))

    def _thresholds(self, limits: Limits) -> Any:
        """The thresholds, in any form except a path, within the limits."""
        given = self.thresholds
        if given is None or isinstance(given, (int, float)):
            return given
        if not isinstance(given, (list, dict)):
            raise RequestError(
                f"field 'thresholds' is a {type(given).__name__}: expected a number, a list of numbers, an "
                "object of labels and numbers, or the content of a file of `evaluate --thresholds`"
            )
        read = read_given(given)
        values = read.values if isinstance(read, Thresholds) else read
        limits.check_count("labels", len(values))
        if isinstance(values, dict):
            for i, label in enumerate(values):
                limits.check_characters(f"thresholds[{i}]", label)
        if isinstance(read, Thresholds):
            limits.check_count("templates", len(read.templates))
            limits.check_prompts(Prompts(tuple(self.labels or values), read.templates))
        return read

    def _images(self, limits: Limits, name_of: NameOf) -> list[NamedImage]:
        names = [name_of("images", i) for i in range(len(self.images or ()))]
        contents = [_image(image, name, limits) for image, name in zip(self.images or (), names, strict=True)]
        named = named_images(contents if self.images is not None else None, None)
        return [(name, image) for name, (_, image) in zip(names, named, strict=True)]


def _image(text: str, name: str, limits: Limits) -> bytes:
    limits.check_bytes(name, len(text) * 3 // 4)
    content = _from_base64(text, name)
    limits.check_pixels(name, content)
    return content


def _from_base64(text: str, name: str) -> bytes:
    """Decode base64, standard or URL-safe, plain or in a data URL."""
    if found := _DATA_URL.match(text):
        if not re.search(r"; *base64\s*$", found[1], re.IGNORECASE):
            raise RequestError(
                f"{name} is a data URL that is not in base64: begin it with 'data:...;base64,'"
            )
        text = text[found.end() :]
    if _ADDRESS.match(text):
        shown = hide_secrets(text[:_LONGEST_ADDRESS])[:60]
        raise RequestError(
            f"{name} is not base64 but an address ({shown!r}), and no address is fetched: send the bytes of "
            "the image file in base64"
        )
    if text.startswith(("b'", 'b"')):
        raise RequestError(f"{name} is not base64 but the text of a Python bytes object: use .decode()")
    try:
        plain = "".join(text.split()).translate(_URL_SAFE)  # some encoders insert line breaks
        return base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError) as error:
        reason = str(error)
        why = "its padding with '=' is wrong" if "padding" in reason else "it has other letters"
        why = "its end is missing" if "multiple of 4" in reason else why
        raise RequestError(
            f"{name} is not base64 ({why}): send the bytes of an image file in base64, plain, url-safe or as "
            "a data URL (no path, no address)"
        ) from None
