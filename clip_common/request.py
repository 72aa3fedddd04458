"""The body of an HTTP request, typed and checked, and what it asks a predictor for.

Nothing in a body is ever read as a path or fetched as an address; an unknown field is an error.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from .errors import RequestError
from .limits import Limits
from .predictor import Predictor

_FAULTS_SHOWN = 5


class Body(BaseModel):
    """The JSON body of `POST /predict/<module>`."""

    model_config = ConfigDict(extra="forbid")

    images: list[StrictStr] | None = None
    """Pictures, each an encoded file in base64."""
    labels: list[StrictStr] | None = None
    templates: StrictStr | list[StrictStr] | None = None
    texts: list[StrictStr] | None = None
    task: Literal["classify", "embed"] | None = None
    """Left out: `embed` where there are texts, else `classify`."""
    top_k: StrictInt = Field(5, ge=1)
    batch_size: StrictInt = Field(32, ge=1)
    normalize: StrictBool = True
    use_gpu: StrictBool = False

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Body:
        """Check a decoded JSON object.

        Raises:
            RequestError: naming each field that is wrong, and why.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            faults = error.errors()
            more = f"; and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
            raise RequestError("; ".join(map(_fault, faults[:_FAULTS_SHOWN])) + more) from None

    def answer(self, predictor: Predictor, limits: Limits) -> Any:
        """The `results` of the reply, in plain JSON types.

        Raises:
            ClipError: what the body asks for cannot be done; the message names the field.
        """
        self._keep_to(limits)
        task = self.task or ("embed" if self.texts is not None else "classify")
        if task == "classify":
            self._refuse("classify", "texts")
            if self.images is None:
                raise RequestError("nothing to classify: give images, or texts to embed")
            return predictor.classify(
                images=self._pictures(limits),
                labels=self.labels,
                templates=self.templates,
                batch_size=self.batch_size,
                use_gpu=self.use_gpu,
                top_k=self.top_k,
            )
        self._refuse("embed", "labels", "templates")
        if self.images is None and self.texts is None:
            raise RequestError("nothing to embed: give images or texts")
        vectors = predictor.embed(
            images=self._pictures(limits),
            texts=self.texts,
            batch_size=self.batch_size,
            use_gpu=self.use_gpu,
            normalize=self.normalize,
        )
        return {kind: _as_list(array) for kind, array in vectors.items()}

    def _refuse(self, task: str, *fields: str) -> None:
        given = [field for field in fields if getattr(self, field) is not None]
        if given:
            raise RequestError(
                f"field '{given[0]}' does not go with the task {task!r}: leave one of them out"
            )

    def _keep_to(self, limits: Limits) -> None:
        """Refuse what is too much, before anything is decoded."""
        limits.check_count("pictures", len(self.images or ()))
        templates = [self.templates] if isinstance(self.templates, str) else self.templates or []
        for field, texts in (("labels", self.labels), ("texts", self.texts)):
            limits.check_count(field, len(texts or ()))
        for field, texts in (("labels", self.labels), ("templates", templates), ("texts", self.texts)):
            limits.check_characters(field, texts or ())
        limits.check_count("prompts", len(self.labels or ()) * max(1, len(templates)))

    def _pictures(self, limits: Limits) -> list[bytes] | None:
        if self.images is None:
            return None
        return [_picture(image, f"images[{i}]", limits) for i, image in enumerate(self.images)]


def _picture(text: str, name: str, limits: Limits) -> bytes:
    limits.check_bytes(name, len(text) * 3 // 4)
    content = _from_base64(text, name)
    limits.check_pixels(name, content)
    return content


def _from_base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)  # some encoders break lines
    except (binascii.Error, ValueError):
        raise RequestError(
            f"{name} is not base64: send the bytes of a picture file in base64 (no path, no address)"
        ) from None


def _as_list(array: np.ndarray | None) -> list | None:
    return None if array is None else array.tolist()


def _fault(fault: Any) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
    field = place.lstrip(".")[:80]
    if fault["type"] == "extra_forbidden":
        return f"unknown field '{field}' (known: {', '.join(Body.model_fields)})"
    return f"field '{field}': {fault['msg']}"
