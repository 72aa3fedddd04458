"""The data of OpenAI's API: bodies and results of `POST /v1/embeddings`, `GET /v1/models`, and errors.

A body is converted to a `RequestBody`, so that the same checks and limits apply. `openai_routes.py` has the
routes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import StrictInt, StrictStr, WithJsonSchema

from ..config import pretrained
from ..errors import BusyError, ClipError, LimitError, MalformedError, WeightsError
from ..text.prompts import is_blank
from .json_body import FieldError, JsonBody
from .limits import Limits
from .request import PredictRequest, RequestBody

PREFIX = "/v1/"
"""Prefix of the paths whose errors are in OpenAI's form."""

Kind = Literal["text", "image"]

_FIELDS: dict[Kind, str] = {"text": "texts", "image": "images"}  # of `RequestBody`
_IMAGE_DATA = re.compile(r"\s*data:image/", re.IGNORECASE)
_CODES = {401: "invalid_api_key"}
_STRING = {"type": "string"}
_ITEMS = [
    _STRING,
    *(
        {"type": "object", "properties": {kind: _STRING}, "required": [kind], "additionalProperties": False}
        for kind in _FIELDS
    ),
]
_INPUT = {"anyOf": [*_ITEMS, {"type": "array", "items": {"anyOf": _ITEMS}, "minItems": 1}]}
_USAGE = {name: {"type": "integer"} for name in ("prompt_tokens", "total_tokens")}
_EMBEDDING = {
    "object": {"const": "embedding"},
    "index": {"type": "integer"},
    "embedding": {"anyOf": [{"type": "array", "items": {"type": "number"}}, _STRING]},
}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


MODEL_SCHEMA = _object(
    id=_STRING, object={"const": "model"}, created={"type": "integer"}, owned_by={"type": "string"}
)
MODELS_SCHEMA = _object(object={"const": "list"}, data={"type": "array", "items": MODEL_SCHEMA})
EMBEDDINGS_SCHEMA = _object(
    object={"const": "list"},
    data={"type": "array", "items": _object(**_EMBEDDING)},
    model=_STRING,
    usage=_object(**_USAGE),
)
_OR_NULL = {"anyOf": [_STRING, {"type": "null"}]}
ERROR_SCHEMA = _object(error=_object(message=_STRING, type=_STRING, param=_OR_NULL, code=_OR_NULL))


class UnknownModelError(FieldError):
    """The requested model is not served."""

    def __init__(self, name: str, modules: Collection[str]) -> None:
        known = ", ".join(modules)
        super().__init__(f"no model named {name[:80]!r} is served here: there are {known}", "model")


_STATUSES = (
    (UnknownModelError, 404),
    (LimitError, 413),
    (BusyError, 503),
    (WeightsError, 500),
    (ClipError, 400),
)


class EmbeddingsBody(JsonBody):
    """The JSON body of `POST /v1/embeddings`."""

    model: StrictStr
    """Name of a module that is served."""
    input: Annotated[Any, WithJsonSchema(_INPUT)]
    """A text, `{"text": ...}` or `{"image": ...}`, or several of these; an image is a file in base64 or a
    data URL."""
    encoding_format: Literal["float", "base64"] | None = None
    """"float" (default): numbers; "base64": base64 of little-endian float32."""
    modality: Kind | None = None
    """What strings in `input` are; default: texts."""
    dimensions: StrictInt | None = None
    """Size of the embeddings; only the model's own size is accepted."""
    user: StrictStr | None = None
    """Ignored."""

    @classmethod
    def read(cls, body: bytes, modules: Collection[str]) -> EmbeddingsBody:
        """Parse a body, see `parse_json`, and check that its model is served.

        Raises:
            UnknownModelError: it is not; the message names those that are.
            FieldError: a field is invalid, or `dimensions` is not the size of the model's embeddings.
        """
        read = cls.parse_json(body)
        if read.model not in modules:
            raise UnknownModelError(read.model, modules)
        size = pretrained(read.model).config.embed_dim
        if read.dimensions not in (None, size):
            raise FieldError(
                f"dimensions is {read.dimensions}, and embeddings of {read.model} have {size} and cannot be "
                "shortened: leave it out",
                "dimensions",
            )
        return read

    def work(self, limits: Limits) -> PredictRequest:
        """Convert the body to a request, see `RequestBody.work`, that also counts tokens.

        Raises:
            ClipError: the body is invalid or exceeds a limit; the message names the item.
        """
        items = self._items()
        if not items:
            raise FieldError("input is empty: give at least one text or image", "input")
        places: dict[str, list[int]] = {}
        for i, (kind, content) in enumerate(items):
            if kind == "text" and is_blank(content):
                raise FieldError(f"{self._name(i)} is blank: remove it", "input")
            places.setdefault(_FIELDS[kind], []).append(i)
        fields = {field: [items[i][1] for i in found] for field, found in places.items()}
        body = RequestBody.parse({"task": "embed", **fields})
        return replace(body.work(limits, lambda field, i: self._name(places[field][i])), count_tokens=True)

    def answer(self, results: dict[str, Any]) -> dict[str, Any]:
        """The content of the response, from the `results` of the request."""
        parts = {kind: iter(results[field] or ()) for kind, field in _FIELDS.items()}
        encode = _base64 if self.encoding_format == "base64" else list
        data = [
            {"object": "embedding", "index": i, "embedding": encode(next(parts[kind]))}
            for i, (kind, _) in enumerate(self._items())
        ]
        tokens = results["tokens"]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": self.model, "usage": usage}

    def _items(self) -> list[tuple[Kind, str]]:
        given = self.input if isinstance(self.input, list) else [self.input]
        return [self._item(item, self._name(i)) for i, item in enumerate(given)]

    def _item(self, item: Any, name: str) -> tuple[Kind, str]:
        """The kind of an item of `input`, and its content."""
        if isinstance(item, str):
            if self.modality is None and _IMAGE_DATA.match(item):
                raise FieldError(
                    f'{name} is a data URL of an image among texts: give it as {{"image": ...}}, or set '
                    'modality to "image"',
                    "input",
                )
            return self.modality or "text", item
        if isinstance(item, dict) and len(item) == 1:
            ((kind, content),) = item.items()
            if kind in _FIELDS and isinstance(content, str):
                return kind, content
        if _are_tokens(item):
            raise FieldError(
                f"{name} holds token ids, which differ between models: send texts (with "
                "LangChain, OpenAIEmbeddings(check_embedding_ctx_length=False))",
                "input",
            )
        raise FieldError(f'{name} is neither a text nor {{"text": "..."}} nor {{"image": "..."}}', "input")

    def _name(self, place: int) -> str:
        return f"input[{place}]" if isinstance(self.input, list) else "input"


def _are_tokens(item: Any) -> bool:
    first = item[0] if isinstance(item, list) and item else item
    return isinstance(first, int) and not isinstance(first, bool)


def _base64(embedding: list[float]) -> str:
    return base64.b64encode(np.asarray(embedding, "<f4").tobytes()).decode()


def status_of(error: ClipError) -> int:
    """The HTTP status that OpenAI's clients expect for an error."""
    return next(status for kind, status in _STATUSES if isinstance(error, kind))


def error_content(status: int, error: ClipError | str) -> dict[str, Any]:
    """The content of an error response."""
    param = None
    if isinstance(error, FieldError):
        param = error.field
    elif isinstance(error, ClipError) and status in (400, 413) and not isinstance(error, MalformedError):
        param = "input"
    code = "model_not_found" if isinstance(error, UnknownModelError) else _CODES.get(status)
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": param, "code": code}}


def model_content(name: str, created: int) -> dict[str, Any]:
    """The content of a response that describes a module."""
    return {"id": name, "object": "model", "created": created, "owned_by": "clip-hub"}
