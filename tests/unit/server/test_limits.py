"""Limits of a request: each refuses by name, before anything is decoded or encoded."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from dataclasses import fields, replace

import pytest
from PIL import Image, ImageFile

from clip_common.errors import ImageError, LimitError, MalformedError, RequestError
from clip_common.preprocessing.image import open_image
from clip_common.server.limits import Limits
from clip_common.server.request import RequestBody
from tests.support import broken_images as broken
from tests.support.broken_images import ico, tiled

SMALL = Limits(
    pictures=2, picture_bytes=2000, pixels=10_000, labels=3, templates=3, prompts=5, texts=2, characters=20
)


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
        ({"images": ["A" * 4000]}, r"images\[0\] has about 3,000 bytes, at most 2,000", "PICTURE_BYTES"),
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
        ({"images": [png()], "labels": ["a"], "templates": "openai"}, "has 80 templates", "TEMPLATES"),
        ({"texts": list("abc")}, "has 3 texts, at most 2", "TEXTS"),
        ({"texts": ["x" * 21]}, r"texts\[0\] has 21 characters, at most 20", "CHARACTERS"),
        ({"images": [png()], "labels": ["a", "x" * 21]}, r"labels\[1\] has 21 characters", "CHARACTERS"),
        (
            {"images": [png()], "labels": ["a"], "templates": "{}" * 20},
            r"templates\[0\] has 40",
            "CHARACTERS",
        ),
        (
            {"images": [png()], "labels": ["a", "x" * 9], "templates": ["{}", "{} and {} {}"]},
            r"the template '{} and {} {}' with the label 'xxxxxxxxx' in it has 33 characters",
            "CHARACTERS",
        ),
        ({"images": [png()], "templates": ["{}"] * 4}, "has 4 templates, at most 3", "TEMPLATES"),
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


# --- images, by their bytes --------------------------------------------------------------------------


def content(text: str) -> bytes:
    return base64.b64decode(text)


def icon(inner: bytes) -> bytes:
    """An icon of 16 x 16, its directory says."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


def bitmap_icon(width: int, height: int) -> bytes:
    return icon(struct.pack("<IiiHHIIiiII", 40, width, 2 * height, 1, 1, 0, 0, 0, 0, 0, 0))


def tiff(side: int, tile: int) -> bytes:
    file = io.BytesIO()
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 200, 325: 9}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    file.write(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4))
    return file.getvalue().ljust(220, b"x")


def chunks(count: int) -> bytes:
    """A PNG with so many empty chunks."""
    head, empty = content(png()), b"\0\0\0\0abCd" + struct.pack(">I", zlib.crc32(b"abCd"))
    return head[:33] + count * empty + head[33:]


def markers(filling: bytes) -> bytes:
    """A JPEG with something between its markers."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "JPEG")
    return file.getvalue()[:2] + filling + file.getvalue()[2:]


@pytest.mark.parametrize(
    ("image", "refusal"),
    [
        (icon(content(png(500, 100))), r"is 500 x 100 pixels"),
        (bitmap_icon(300, 200), r"is 300 x 400 pixels"),
        (tiff(64, 1024), r"is 1024 x 1024 pixels"),
        (chunks(30_000), "has more parts"),
        (icon(chunks(30_000)), "has more parts"),
        (markers(b"\xff\xfe\0\2" * 30_000), "has more parts"),
        (markers(b"\xff" * 60_000), "has more parts"),
        (
            broken.png(broken.header(0, 60_000)),
            r"has far more pixels than the 10,000 that are allowed .*PIXELS",
        ),
    ],
)
def test_what_decoding_would_make_room_for_is_limited(
    image: bytes, refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it is decoded"))
    body = RequestBody.parse({"images": [base64.b64encode(image).decode()], "labels": ["a"]})
    with pytest.raises(LimitError, match=rf"images\[0\] .*{refusal}"):
        body.work(replace(SMALL, picture_bytes=1 << 20))


@pytest.mark.parametrize(
    "image", [icon(content(png(90, 90))), bitmap_icon(90, 50), tiff(64, 64), chunks(5_000)]
)
def test_what_is_small_when_decoded_passes(image: bytes) -> None:
    body = RequestBody.parse({"images": [base64.b64encode(image).decode()], "labels": ["a"]})
    assert body.work(replace(SMALL, picture_bytes=1 << 20)).images == [("images[0]", image)]


def test_an_image_in_too_many_pieces_is_not_decoded_either() -> None:
    head = content(png())
    (end,) = (i for i in range(len(head)) if head[i : i + 4] == b"IEND")
    trailing = (
        head[: end - 4]
        + 300_000 * (b"\0\0\0\0abCd" + struct.pack(">I", zlib.crc32(b"abCd")))
        + head[end - 4 :]
    )
    with pytest.raises(ImageError, match=r"images\[0\]: the file has more parts than any image needs"):
        open_image(trailing, "images[0]").tobytes()


# --- base64 and JSON ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "data:image/png;base64,",
        "data:;base64,",
        "data:image/x;a=b;base64,",
        "DATA:IMAGE/PNG;BASE64,",
        " \ndata:image/png; base64,\n",
    ],
)
@pytest.mark.parametrize("alphabet", ["+/", "-_"])
def test_base64_of_either_alphabet_and_data_urls_are_taken(prefix: str, alphabet: str) -> None:
    image = content(png()) + b"\xfb\xff\xfe\xff"
    text = base64.b64encode(image, alphabet.encode()).decode()
    assert alphabet[0] in text and alphabet[1] in text
    assert RequestBody.parse({"images": [prefix + text]}).work(Limits()).images == [("images[0]", image)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("data:image/png,xyz", "a data URL that is not in base64"),
        ("data:image/png;charset=x,%89PNG", "a data URL that is not in base64"),
        ("b'aGk='", "the text of a Python bytes object"),
        ("aGk", "its padding with '=' is wrong"),
        ("aGkha", "its end is missing"),
        (" Data:image/png,aGk=", "a data URL that is not in base64"),
        ("\n HTTP://127.0.0.1/x.png", "no address is fetched"),
        ("/etc/passwd", "no path"),
        ("http://127.0.0.1/x.png", "no address is fetched"),
        ("狗", "it has other letters"),
    ],
)
def test_what_is_no_base64_is_refused_and_why(text: str, why: str) -> None:
    with pytest.raises(RequestError, match=r"images\[0\] is ") as error:
        RequestBody.parse({"images": [text]}).work(Limits())
    assert why in str(error.value)


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"images"'])
def test_a_body_that_is_no_object_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(RequestError, match=r"^the body: Input should be an object$"):
        RequestBody.parse_json(body)


def test_the_name_of_an_unknown_field_is_shown_on_one_line() -> None:
    with pytest.raises(RequestError) as error:
        RequestBody.parse_json(b'{"a\\n\\u001b[31m\\u202eb": 1}')
    assert str(error.value).startswith(r"unknown field 'a\n\x1b[31m\u202eb' (known")


def test_a_mark_before_the_body_is_no_matter() -> None:
    assert RequestBody.parse_json(b'\xef\xbb\xbf{"texts": ["a"]}').texts == ["a"]
    with pytest.raises(MalformedError, match="UTF-16"):
        RequestBody.parse_json('{"texts": ["a"]}'.encode("utf-16"))


@pytest.mark.parametrize("item", ["1", "[]", "{}", '"a"'])
def test_a_body_of_millions_of_values_is_not_even_read(item: str) -> None:
    with pytest.raises(LimitError, match="more than 500,000 values"):
        RequestBody.parse_json(f'{{"labels": [{",".join([item] * 600_000)}]}}'.encode())


def test_hundreds_of_thousands_of_faults_are_only_counted() -> None:
    fields = ",".join(f'"f{i}": 1' for i in range(200_000))
    with pytest.raises(RequestError, match="200,000 fields or items are wrong"):
        RequestBody.parse_json(f"{{{fields}}}".encode())


# --- what is asked -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"images": [png()]}, "small"),
        ({"images": [png()] * 40}, "images"),
        ({"images": [png()], "labels": [str(i) for i in range(300)]}, "texts"),
        ({"images": [png()], "labels": list("abcd"), "templates": "openai"}, "texts"),
        ({"images": [png()], "templates": "a {}"}, "texts"),
        ({"images": [png()], "labels": list("abc"), "templates": "openai"}, "small"),
        ({"texts": ["a"] * 300}, "texts"),
        ({"texts": ["a"] * 200}, "small"),
    ],
)
def test_requests_wait_with_their_like(fields: dict, kind: str) -> None:
    assert RequestBody.parse(fields).work(Limits()).kind == kind


def test_a_batch_size_is_capped() -> None:
    assert RequestBody.parse({"texts": ["a"], "batch_size": 10**30}).work(Limits()).batch_size == 64
    assert RequestBody.parse({"texts": ["a"], "batch_size": 3}).work(Limits()).batch_size == 3
