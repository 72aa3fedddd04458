"""Hostile requests through the layer that both doors share: each gets an error of its own, and nothing else.

`python -m benchmarks.load hostile` sends more of them to a running server.
"""

from __future__ import annotations

import base64
import io
import random
from typing import Any

import numpy as np
import pytest

pytest.importorskip("schemathesis", reason="of the extra [test]")
import schemathesis
from hypothesis import HealthCheck, settings
from PIL import Image
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from clip_common.errors import ClipError, LimitError
from clip_common.preprocessing.image import FORMATS
from clip_common.server.admission import Admission, AdmissionMiddleware
from clip_common.server.answering import answer
from clip_common.server.http import create_api
from clip_common.server.limits import Limits
from clip_common.server.request import RequestBody
from tests.support.direct_service import URL, Direct

SERVICE = Direct()
API = create_api(SERVICE)
API.add_middleware(AdmissionMiddleware, admission=Admission(None, 50 << 20, 100 << 20, 5))
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", API)
Image.init()
KINDS = [kind for kind in FORMATS if kind in Image.SAVE and kind != "MPO"]


def image(kind: str, seed: int) -> bytearray:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 36, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return bytearray(file.getvalue())


def mutated(kind: str, seed: int) -> bytes:
    """An image with some bytes changed, most of them in its headers, and perhaps its end missing."""
    rng = random.Random(seed)
    content = image(kind, seed)
    for _ in range(rng.randint(1, 12)):
        content[rng.randrange(min(len(content), rng.choice((64, 100_000))))] = rng.randrange(256)
    if rng.random() < 0.3:
        del content[rng.randrange(len(content)) :]
    return bytes(content)


def ask(content: bytes) -> Any:
    body = RequestBody.parse({"images": [base64.b64encode(content).decode()], "labels": ["a dog", "a cat"]})
    return answer(SERVICE.predictor, [body.work(Limits())])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_images_are_answered_or_refused(kind: str) -> None:
    assert isinstance(ask(bytes(image(kind, 0))), list)
    refused = 0
    for seed in range(60):
        try:
            result = ask(mutated(kind, seed))
        except LimitError:  # a header that claims a huge image
            refused += 1
            continue
        assert isinstance(result, (list, ClipError)), type(result)
        refused += isinstance(result, ClipError)
    assert refused or kind in ("TGA", "BMP", "DIB", "PPM")  # these have little that can be wrong


@pytest.mark.parametrize(
    ("kind", "side"), [("PNG", 12_000), ("GIF", 12_000), ("TIFF", 12_000), ("WEBP", 9_000)]
)
def test_bombs_are_refused_before_they_are_decoded(kind: str, side: int) -> None:
    file = io.BytesIO()
    options = {"compression": "tiff_deflate"} if kind == "TIFF" else {}
    Image.new("1" if kind != "WEBP" else "RGB", (side, side)).save(file, kind, **options)
    assert len(file.getvalue()) < 3 << 20
    with pytest.raises(LimitError, match=rf"images\[0\] is {side} x {side} pixels"):
        ask(file.getvalue())


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>", b"GIF89a", b"\0" * 99]
)
def test_what_is_no_image_of_an_allowed_format_is_refused(content: bytes) -> None:
    result = ask(content)
    assert isinstance(result, ClipError)
    assert "images[0]" in str(result)


@SCHEMA.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_openapi_document_is_what_the_server_does(case: schemathesis.Case) -> None:
    # A document cannot say that labels do not go with texts, or that base64 must hold an image.
    case.validate_response(case.call(), excluded_checks=[positive_data_acceptance])


def test_after_all_that_a_normal_request_works() -> None:
    reply = TestClient(API).post(URL, json={"texts": ["a dog"]})
    assert reply.status_code == 200
