"""JSON bodies of HTTP requests: how they are parsed, and what their errors say."""

from __future__ import annotations

import codecs
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import LimitError, MalformedError, RequestError
from ..system.file_names import printable

_FAULTS_SHOWN = 5
_FAULTS_READ = 10_000
_VALUES = 500_000  # maximum number of JSON values in a body; each takes some hundred bytes of memory

Body = TypeVar("Body", bound=BaseModel)


class FieldError(RequestError):
    """An invalid field of a body.

    Attributes:
        field: its name; None for the body as a whole.
    """

    def __init__(self, message: str, field: str | None) -> None:
        super().__init__(message)
        self.field = field


class JsonBody(BaseModel):
    """A JSON body; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def parse_json(cls: type[Body], body: bytes) -> Body:
        """Parse a body from its bytes.

        Raises:
            MalformedError: it is not valid JSON.
            LimitError: it has too many values.
            FieldError: fields are invalid; the message names each and says why.
        """
        try:
            return cls.model_validate_json(_utf8(body))
        except ValidationError as error:
            raise _described(error, cls) from None

    @classmethod
    def parse(cls: type[Body], fields: dict[str, Any]) -> Body:
        """Parse a body from a decoded JSON object.

        Raises:
            FieldError: fields are invalid; the message names each and says why.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise _described(error, cls) from None


def _utf8(body: bytes) -> bytes:
    """Remove a BOM from a body.

    Raises:
        MalformedError: the body is UTF-16 or UTF-32.
        LimitError: it has too many values.
    """
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise MalformedError("the body is not JSON in UTF-8: it begins like UTF-16 or UTF-32")
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
    if not fault["loc"]:
        return f"the body: {fault['msg']}"
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
    field = printable(place.lstrip(".")[:80])
    if fault["type"] == "extra_forbidden":
        return f"unknown field '{field}' (known: {', '.join(model.model_fields)})"
    return f"field '{field}': {fault['msg']}"
