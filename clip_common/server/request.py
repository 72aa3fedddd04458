"""The body of an HTTP request, typed and checked, and the work that it asks for.

Nothing in a body is ever read as a path or fetched as an address; an unknown field is an error.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    WithJsonSchema,
)

from ..errors import LimitError, MalformedError, RequestError
from ..inputs import NamedImage, named_images
from ..system.secrets import hide_secrets
from ..text.prompts import Prompts, template_texts
from ..zero_shot.scoring import ScoreKind
from ..zero_shot.thresholds import Thresholds, read_given
from .limits import Limits

_FAULTS_SHOWN = 5
_FAULTS_READ = 10_000
_VALUES = 500_000  # in a body; each takes some hundred bytes of memory
_MOST_AT_ONCE = 64
MOST_EXPLAINED = 10
"""Labels of an image that one request gets heat maps of."""
FEW_TEXTS, FEW_IMAGES = 256, 16
"""Texts, or prompts, and images up to which a request is small."""
_DEFAULT_LABELS = 1_000  # or so
_DATA_URL = re.compile(r"data:([^,]{0,200}),")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://")
_LONGEST_ADDRESS = 2000  # characters that are looked at to show some
_URL_SAFE = str.maketrans("-_", "+/")
_SCORES = (
    "`softmax` over all labels, which compares them; or `cosine` of image and label, by which several or "
    "none may be true. Left out: `softmax`, or what a file's thresholds are of"
)
_EXPLAIN = (
    "how many labels of the answer, from the best, get a heat map of the image: `heat`, R rows of R numbers "
    "over the square that the model sees, by how much showing a place raises the label's log odds; and "
    "`heat_of`, which is `centre` where that square is of the image's shorter side and in its middle, or "
    "`whole` where it is the whole image. It goes with one image, and takes as long as to classify 256"
)
_THRESHOLDS = {
    "description": "the score from which a label is true: one number for all; one for each, in the "
    "order of the labels or as {label: number}; or the content of a file that `clip-hub evaluate "
    "--thresholds` wrote, which brings labels, templates and scores with it. An image for which no label is "
    "true is answered with []",
    "anyOf": [
        {"type": "number"},
        {"type": "array", "items": {"type": "number"}},
        {"type": "object"},
        {"type": "null"},
    ],
}

Body = TypeVar("Body", bound=BaseModel)
NameOf = Callable[[str, int], str]
"""A field of `RequestBody` and a place in it to what an error calls that item."""


class FieldError(RequestError):
    """A field of a body that is wrong.

    Attributes:
        field: its name; None where it is the body as a whole.
    """

    def __init__(self, message: str, field: str | None) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class PredictRequest:
    """A checked request, ready for a predictor."""

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
    """Those that it was let in under."""
    scores: ScoreKind | None = None
    thresholds: Any = None
    """As `Predictor.classify` takes them, and no path."""
    explain: int = 0
    """How many labels of the answer get a heat map."""
    count_tokens: bool = False
    """Whether the results say how many tokens the texts to embed have."""

    @property
    def kind(self) -> Literal["small", "texts", "images", "explain"]:
        """What there may be much of: requests wait with their like, so that a long one keeps only these."""
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
        """The same with the server's thresholds, where it asks for no labels or scores of its own."""
        asked = (self.labels, self.templates, self.scores, self.thresholds)
        if self.task == "classify" and thresholds is not None and all(given is None for given in asked):
            return replace(self, thresholds=thresholds)
        return self

    def on_gpu(self) -> PredictRequest:
        """The same on the GPU, whatever was asked."""
        return replace(self, use_gpu=True)


class JsonBody(BaseModel):
    """A body in JSON, whose fields are all known."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def parse_json(cls: type[Body], body: bytes) -> Body:
        """Check a body as it came.

        Raises:
            MalformedError: it is not JSON.
            FieldError: naming each field that is wrong, and why.
        """
        try:
            return cls.model_validate_json(_utf8(body))
        except ValidationError as error:
            raise _described(error, cls) from None


class RequestBody(JsonBody):
    """The JSON body of `POST /predict/<module>`."""

    images: list[StrictStr] | None = None
    """Images, each an encoded file in base64."""
    labels: list[StrictStr] | None = None
    templates: StrictStr | list[StrictStr] | None = None
    texts: list[StrictStr] | None = None
    task: Literal["classify", "embed"] | None = None
    """Left out: `embed` where there are texts, else `classify`."""
    top_k: StrictInt = Field(5, ge=1)
    scores: ScoreKind | None = Field(None, description=_SCORES)
    thresholds: Annotated[Any, WithJsonSchema(_THRESHOLDS)] = None
    explain: StrictInt | None = Field(None, ge=1, le=MOST_EXPLAINED, description=_EXPLAIN)
    batch_size: StrictInt = Field(32, ge=1)
    normalize: StrictBool = True
    use_gpu: StrictBool = False

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> RequestBody:
        """Check a decoded JSON object.

        Raises:
            RequestError: naming each field that is wrong, and why.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise _described(error, cls) from None

    def work(self, limits: Limits, name_of: NameOf = "{}[{}]".format) -> PredictRequest:
        """What the body asks for, its images decoded from base64 and everything within the limits.

        Args:
            limits: of a request.
            name_of: what an error calls an item.

        Raises:
            ClipError: what the body asks for makes no sense, or is too much; the message names the field.
        """
        thresholds = self._thresholds(limits)
        self._keep_to(limits, name_of)
        task = self.task or ("embed" if self.texts is not None else "classify")
        if task == "classify":
            self._refuse(task, "texts")
            if self.images is None:
                raise RequestError("nothing to classify: give images, or texts to embed")
            if self.explain and len(self.images) > 1:
                raise RequestError(
                    f"field 'explain' goes with one image, and there are {len(self.images)}: send each in a "
                    "request of its own"
                )
        else:
            self._refuse(task, "labels", "templates", "scores", "thresholds", "explain")
            if self.images is None and self.texts is None:
                raise RequestError("nothing to embed: give images or texts")
        return PredictRequest(
            task=task,
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

    def _refuse(self, task: str, *fields: str) -> None:
        given = [field for field in fields if getattr(self, field) is not None]
        if given:
            raise RequestError(
                f"field '{given[0]}' does not go with the task {task!r}: leave one of them out"
            )

    def _keep_to(self, limits: Limits, name_of: NameOf) -> None:
        """Refuse what is too much, before anything is decoded."""
        limits.check_count("pictures", len(self.images or ()))
        limits.check_count("labels", len(self.labels or ()))
        limits.check_count("texts", len(self.texts or ()))
        templates = template_texts(self.templates)
        limits.check_count("templates", len(templates))
        given = [self.templates] if isinstance(self.templates, str) else self.templates
        for field, texts in (("labels", self.labels), ("templates", given), ("texts", self.texts)):
            for i, text in enumerate(texts or ()):
                limits.check_characters(name_of(field, i), text)
        if self.labels:  # left out, they are counted once it is known what they stand for
            limits.check_prompts(Prompts(tuple(self.labels), tuple(templates) or ("{}",)))

    def _thresholds(self, limits: Limits) -> Any:
        """Thresholds in any form but a path, and no more of them than there may be labels."""
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
    """The bytes of base64 in either alphabet, plain or as a data URL."""
    if found := _DATA_URL.match(text):
        if not found[1].endswith(";base64"):
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
        raise RequestError(f"{name} is not base64 but Python's way to print bytes: use .decode()")
    try:
        plain = "".join(text.split()).translate(_URL_SAFE)  # some encoders break lines
        return base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError) as error:
        why = "its padding with '=' is wrong" if "padding" in str(error) else "it has other letters"
        raise RequestError(
            f"{name} is not base64 ({why}): send the bytes of an image file in base64, plain, url-safe or as "
            "a data URL (no path, no address)"
        ) from None


def _utf8(body: bytes) -> bytes:
    """A body without the mark that some editors put before UTF-8.

    Raises:
        MalformedError: it is in another encoding.
        LimitError: it holds more values than any request has.
    """
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise MalformedError("the body is not JSON in UTF-8: it begins as UTF-16 or UTF-32 do")
    if sum(map(body.count, (b",", b"[", b"{"))) > _VALUES:
        raise LimitError(f"the body has more than {_VALUES:,} values")
    return body.removeprefix(codecs.BOM_UTF8)


def _described(error: ValidationError, model: type[BaseModel]) -> RequestError:
    if error.error_count() > _FAULTS_READ:
        count = f"{error.error_count():,}"
        return FieldError(f"{count} fields or items are wrong: send what /docs describes", None)
    faults = error.errors(include_input=False, include_url=False)
    if faults[0]["type"] == "json_invalid":
        return MalformedError(f"the body is not JSON: {faults[0]['ctx']['error']}")
    more = f"; and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
    text = "; ".join(_fault(fault, model) for fault in faults[:_FAULTS_SHOWN]) + more
    place = faults[0]["loc"]
    return FieldError(text, str(place[0])[:80] if place else None)


def _fault(fault: Any, model: type[BaseModel]) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
    field = place.lstrip(".")[:80]
    if fault["type"] == "extra_forbidden":
        return f"unknown field '{field}' (known: {', '.join(model.model_fields)})"
    return f"field '{field}': {fault['msg']}"
