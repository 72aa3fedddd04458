"""HEIC and HEIF: read with the extra, spoken of without, and never larger than they may be."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_common.config import Preprocessing
from clip_common.errors import ImageError, LimitError
from clip_common.preprocessing import files, heif, image
from clip_common.preprocessing.decoded_size import decoded_size
from clip_common.preprocessing.files import Seen, image_files, is_image, kind_of
from clip_common.preprocessing.image import Preprocess, open_image, readable_formats
from clip_common.server.limits import Limits

HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
SETTINGS = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    readable = [form for form in readable_formats() if form != "HEIF"]
    for module in (heif, files, image):
        monkeypatch.setattr(module, "reads_heif", lambda: False)
    monkeypatch.setattr(files, "IMAGE_SUFFIXES", files.IMAGE_SUFFIXES - heif.HEIF_SUFFIXES)
    monkeypatch.setattr(image, "readable_formats", lambda: readable)


def test_without_the_extra_it_is_named(without: None, tmp_path: Path) -> None:
    for name in ("IMG_1.HEIC", "IMG_2.heic", "IMG_3.heif"):
        (tmp_path / name).write_bytes(HEAD)
    seen = Seen()
    assert not list(image_files(str(tmp_path), seen))
    assert seen.summary() == "2 .heic (read with the extra [heic]), 1 .heif (read with the extra [heic])"
    assert not is_image("photo", HEAD)
    with pytest.raises(ImageError, match=r"^x: is HEIC or HEIF, read with the extra \[heic\]: pip install"):
        open_image(HEAD, "x")


def test_macos_beside_it_is_passed_over() -> None:
    assert kind_of("._IMG_1.HEIC") == "._* (macOS)"


def square(width: int = 96, height: int = 64) -> Image.Image:
    """Red at the left, blue at the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 255
    return Image.fromarray(pixels)


def heic(source: Image.Image, **options: object) -> bytes:
    pytest.importorskip("pillow_heif")
    readable_formats()  # registers it
    file = io.BytesIO()
    source.save(file, "HEIF", **options)
    return file.getvalue()


def test_a_heic_is_found_and_read(tmp_path: Path) -> None:
    content = heic(square(), quality=95)
    (tmp_path / "IMG_1.HEIC").write_bytes(content)
    (tmp_path / "without a suffix").write_bytes(content)
    (tmp_path / "._IMG_1.HEIC").write_bytes(b"x")
    seen = Seen()
    found = list(image_files(str(tmp_path), seen))
    assert [Path(file).name for file in found] == ["IMG_1.HEIC", "without a suffix"]
    assert seen.summary() == "1 ._* (macOS)"
    for source in (content, found[0]):
        read = open_image(source, "it")
        assert read.size == (96, 64)
        assert np.abs(np.asarray(read).astype(int) - np.asarray(square())).mean() < 8
    assert decoded_size(io.BytesIO(content), readable_formats()) == (96, 64)


@pytest.mark.parametrize("exif_rotation", [False, True])
def test_its_turn_is_part_of_the_format(exif_rotation: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = heic(square(), exif=exif.tobytes())
    read = Preprocess(32, SETTINGS, exif_rotation).open(content, "it")
    assert read.size == (64, 96)
    red, _, blue = read.convert("RGB").getpixel((32, 4))  # type: ignore[misc]
    assert red > 200 and blue < 60  # what was left is above, once


def test_a_size_that_only_the_decoder_would_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    content = heic(square(640, 512))
    states, claims = struct.pack(">2I", 640, 512), struct.pack(">2I", 16, 16)
    assert states in content
    lying = content.replace(states, claims)
    assert Image.open(io.BytesIO(lying)).size == (16, 16)
    assert decoded_size(io.BytesIO(lying), readable_formats()) == (640, 512)
    monkeypatch.setattr(image, "_MAX_PIXELS", 640 * 512 - 1)
    with pytest.raises(ImageError, match=r"640 x 512 pixels, at most"):
        open_image(lying, "it")


def test_parameters_among_the_coded_data() -> None:
    """A decoder takes them from there too."""
    content = heic(square(640, 512))
    place = content.index(b"\x42\x01\x01")  # in hvcC, behind its length
    length = int.from_bytes(content[place - 2 : place], "big")
    unit = content[place : place + length]
    small = heic(square(64, 64))
    whole = small.index(b"mdat") + 4
    with_unit = small[:whole] + struct.pack(">I", length) + unit + small[whole:]
    grown = _grow_mdat(with_unit, small, length + 4)
    assert decoded_size(io.BytesIO(grown), readable_formats()) == (640, 512)


def _grow_mdat(content: bytes, before: bytes, by: int) -> bytes:
    """With the lengths of mdat and of the one extent in iloc made to fit."""
    start = before.index(b"mdat") - 4
    size = len(before) - start - 8
    grown = content.replace(struct.pack(">I", size + 8) + b"mdat", struct.pack(">I", size + 8 + by) + b"mdat")
    place = grown.index(struct.pack(">I", size), grown.index(b"iloc"))
    return grown[:place] + struct.pack(">I", size + by) + grown[place + 4 :]


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


def grid(rows: int, columns: int, width: int, height: int, tiles: int, kind: bytes = b"hvc1") -> bytes:
    """A HEIC of one grid whose tiles are all one of 512 x 512, without its data."""
    return grid_of([b"\0"], [2] * tiles, (rows, columns, width, height), kind)


def grid_of(
    data: list[bytes],
    tiles: list[int],
    shape: tuple[int, int, int, int],
    kind: bytes = b"hvc1",
    hvcc: bytes = b"",
) -> bytes:
    """A HEIC of a grid, item 1, whose tiles are among the items from 2 on; of 512 x 512, with these data."""
    rows, columns, width, height = shape
    count = len(data) + 1
    kinds = [(1, b"grid"), *((item + 2, kind) for item in range(len(data)))]
    infe = [box(b"infe", struct.pack(">IHH4s", 2 << 24, item, 0, of) + b"\0") for item, of in kinds]
    idat = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    sizes = [box(b"ispe", struct.pack(">III", 0, *size)) for size in ((512, 512), (width, height))]
    used = [struct.pack(">HBB", 1, 1, 2), *(struct.pack(">HBBB", item, 2, 1, 3) for item, _ in kinds[1:])]
    locations = [struct.pack(">HHHHII", 1, 1, 0, 1, 0, 8)]
    start = 8
    for (item, _), piece in zip(kinds[1:], data, strict=True):  # in idat too, behind the grid
        locations.append(struct.pack(">HHHHII", item, 1, 0, 1, start, len(piece)))
        start += len(piece)
    meta = [
        box(b"hdlr", bytes(8) + b"pict" + bytes(13)),
        box(b"pitm", struct.pack(">IH", 0, 1)),
        box(b"iinf", struct.pack(">IH", 0, count) + b"".join(infe)),
        box(b"iloc", struct.pack(">IHH", 1 << 24, 0x4400, count) + b"".join(locations)),
        box(b"iref", bytes(4) + box(b"dimg", struct.pack(f">HH{len(tiles)}H", 1, len(tiles), *tiles))),
        box(b"iprp", box(b"ipco", b"".join(sizes) + (hvcc or box(b"free", b"")))
            + box(b"ipma", struct.pack(">II", 0, count) + b"".join(used))),
        box(b"idat", idat + b"".join(data)),
    ]  # fmt: skip
    return box(b"ftyp", b"heic" + bytes(4) + b"mif1heic") + box(b"meta", bytes(4) + b"".join(meta))


def test_a_grid_as_phones_make_it() -> None:
    coded = []
    for colour in ("red", "lime", "blue", "white"):
        content = heic(Image.new("RGB", (512, 512), colour))
        coded.append(content[content.index(b"mdat") + 4 :])
    place = content.index(b"hvcC") - 4
    hvcc = content[place : place + int.from_bytes(content[place : place + 4], "big")]
    whole = grid_of(coded, [2, 3, 4, 5], (2, 2, 1000, 900), hvcc=hvcc)
    assert decoded_size(io.BytesIO(whole), readable_formats()) == (1024, 1024)
    read = open_image(whole, "it")
    assert read.size == (1000, 900)
    corners = np.asarray(read)[[9, 9, 890, 890], [9, 990, 9, 990]]
    expected = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert np.abs(corners.astype(int) - expected).max() < 8


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (grid(6, 8, 4032, 3024, 48), (4096, 3072)),
        (grid(1, 1, 30000, 20000, 1), (30000, 20000)),  # the canvas
        (grid(20, 50, 64, 64, 1000), (25600, 10240)),  # the tiles
    ],
)
def test_a_grid_is_as_large_as_its_tiles(content: bytes, size: tuple[int, int]) -> None:
    assert heif.heif_size(io.BytesIO(content)) == size


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (grid(2, 2, 64, 64, 3), "a grid of 2 x 2 with 3 tiles"),
        (grid(40, 50, 64, 64, 2000), "a grid of 40 x 50"),
        (grid(1, 1, 64, 64, 1, b"grid"), "tiles"),
        (grid(1, 1, 64, 64, 1, b"iovl"), "parts of type 'iovl'"),
        (box(b"ftyp", b"heic" + bytes(4)), "0 boxes 'meta'"),
        (grid(1, 1, 64, 64, 1) + grid(1, 1, 64, 64, 1), "2 boxes 'meta'"),
    ],
)
def test_what_no_photograph_is(content: bytes, fault: str) -> None:
    with pytest.raises(ImageError, match=fault):
        heif.heif_size(io.BytesIO(content))


def test_a_file_too_long_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heif, "_MAX_BYTES", 20)
    with pytest.raises(ImageError, match="a HEIC of more than 20 bytes"):
        decoded_size(io.BytesIO(HEAD + bytes(100)), readable_formats())


def test_the_server_refuses_by_the_true_size() -> None:
    content = heic(square(640, 512))
    lying = content.replace(struct.pack(">2I", 640, 512), struct.pack(">2I", 16, 16))
    with pytest.raises(LimitError, match="image is 640 x 512 pixels, at most 100,000 are allowed"):
        Limits(pixels=100_000).check_pixels("image", lying)
