"""Limits of a request: each refuses by name, before anything is decoded or encoded."""

from __future__ import annotations

import base64
import io
from dataclasses import fields

import pytest
from PIL import Image

from clip_common.errors import LimitError, RequestError
from clip_common.server.limits import Limits
from clip_common.server.request import RequestBody
from tests.support import broken_images as broken
from tests.support.broken_images import ico, tiled

SMALL = Limits(pictures=2, picture_bytes=2000, pixels=10_000, labels=3, prompts=5, texts=2, characters=20)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def png(width: int = 10, height: int = 10) -> str:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return encoded(file.getvalue())


@pytest.mark.parametrize(
    ("body", "refusal", "variable"),
    [
        ({"images": [png()] * 3}, "the request has 3 pictures, at most 2", "PICTURES"),
        ({"images": ["A" * 4000]}, r"images\[0\] has some 3,000 bytes, at most 2,000", "PICTURE_BYTES"),
        ({"images": [png(), png(500, 100)]}, r"images\[1\] is 500 x 100 pixels, at most 10,000", "PIXELS"),
        (
            {"images": [encoded(ico(broken.png(broken.header(0, 200))))]},
            r"images\[0\] is 200 x 200",
            "PIXELS",
        ),
        ({"images": [encoded(tiled(512))]}, r"images\[0\] is 512 x 512 pixels", "PIXELS"),
        ({"images": [png()], "labels": list("abcd")}, "has 4 labels, at most 3", "LABELS"),
        (
            {"images": [png()], "labels": list("abc"), "templates": ["a {}", "b {}"]},
            "has 6 prompts",
            "PROMPTS",
        ),
        ({"images": [png()], "labels": ["a"], "templates": "openai"}, "has 80 prompts", "PROMPTS"),
        ({"texts": list("abc")}, "has 3 texts, at most 2", "TEXTS"),
        ({"texts": ["x" * 21]}, r"texts\[0\] has 21 characters, at most 20", "CHARACTERS"),
        ({"images": [png()], "labels": ["a", "x" * 21]}, r"labels\[1\] has 21 characters", "CHARACTERS"),
        (
            {"images": [png()], "labels": ["a"], "templates": "{}" * 20},
            r"templates\[0\] has 40",
            "CHARACTERS",
        ),
    ],
)
def test_each_limit_refuses_by_name(body: dict, refusal: str, variable: str) -> None:
    with pytest.raises(LimitError, match=refusal) as error:
        RequestBody.parse(body).work(SMALL)
    assert f"CLIP_HUB_MAX_{variable})" in str(error.value)


def test_what_is_within_the_limits_passes() -> None:
    work = RequestBody.parse({"images": [png(100, 100)] * 2, "labels": list("abc")}).work(SMALL)
    assert work.labels == list("abc") and len(work.images) == 2


def test_base64_with_line_breaks_is_taken() -> None:
    lines = base64.encodebytes(base64.b64decode(png())).decode()
    assert "\n" in lines
    work = RequestBody.parse({"images": [lines]}).work(SMALL)
    assert work.images == [("images[0]", base64.b64decode(png()))]


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Limits.from_environment() == Limits()
    for i, field in enumerate(fields(Limits)):
        monkeypatch.setenv(f"CLIP_HUB_MAX_{field.name.upper()}", str(i + 1))
    assert Limits.from_environment() == Limits(*range(1, len(fields(Limits)) + 1))
    for wrong in ("many", "0", "-1", ""):
        monkeypatch.setenv("CLIP_HUB_MAX_PIXELS", wrong)
        with pytest.raises(RequestError, match="CLIP_HUB_MAX_PIXELS is"):
            Limits.from_environment()


def test_many_faults_make_a_short_message() -> None:
    with pytest.raises(RequestError, match="and 2995 more") as error:
        RequestBody.parse({"images": ["x"], "labels": [1] * 3000})
    assert len(str(error.value)) < 1000
