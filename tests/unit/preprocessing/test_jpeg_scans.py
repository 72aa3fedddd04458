"""A JPEG of thousands of scans is refused before it is decoded; those that cameras write pass."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from clip_common.errors import ImageError
from clip_common.preprocessing.image import open_image


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.RandomState(0).randint(0, 255, (40, 50, 4)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., :3]).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def repeated(content: bytes, times: int) -> bytes:
    """With its last scan several times."""
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * times + content[-2:]


def by_component(content: bytes, times: int) -> bytes:
    """A baseline JPEG whose components are in empty scans of their own."""
    start = content.index(b"\xff\xda")
    scans = b"".join(b"\xff\xda\0\x08\1" + bytes([i]) + b"\0\0\x3f\0" for i in (1, 2, 3))
    return content[:start] + scans * times + b"\xff\xd9"


PROGRESSIVE = jpeg(progressive=True)
TRAILING = jpeg() + b"\xff\xda\0\2" * 500  # as the film of a moving photograph may hold by chance
PREVIEW = jpeg(progressive=True, exif=b"Exif\0\0" + b"\xff\xda" * 500)


@pytest.mark.parametrize(
    "content",
    [repeated(PROGRESSIVE, 200), repeated(jpeg("L", progressive=True), 200), by_component(jpeg(), 40)],
)
def test_too_many_scans_are_refused_before_decoding(content, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it is decoded"))
    (tmp_path / "x.jpg").write_bytes(content)
    for source in (content, tmp_path / "x.jpg"):
        with pytest.raises(ImageError, match=r"^x: the JPEG has more than 100 scans"):
            open_image(source, "x")


@pytest.mark.parametrize(
    "content",
    [jpeg(), jpeg("L"), jpeg("CMYK"), PROGRESSIVE, repeated(PROGRESSIVE, 50), TRAILING, PREVIEW],
    ids=["baseline", "grey", "cmyk", "progressive", "many", "trailing", "preview"],
)
def test_usual_files_are_decoded_as_before(content):
    assert open_image(content, "x").tobytes() == Image.open(io.BytesIO(content)).tobytes()
