from __future__ import annotations

import importlib.util
import io
import math
import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_common.config import OPENAI_MEAN, OPENAI_STD, Preprocessing, pretrained
from clip_common.errors import ImageError
from clip_common.preprocessing.decoded_size import decoded_size
from clip_common.preprocessing.image import Preprocess, for_display, normalize, open_image, readable_formats
from clip_common.preprocessing.resize import resize_and_crop
from tests.support.broken_images import header, ico, png, tiled, two_headers
from tests.support.paths import ROOT

SIZE = 224
PLAIN = Preprocess(SIZE, Preprocessing())
MODES = ["1", "L", "P", "P+transparency", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F"]
BICUBIC = Image.Resampling.BICUBIC


# --- the oracle: torchvision's Resize(224, BICUBIC), CenterCrop(224), then RGB, ToTensor, Normalize ------


def resized_size(width: int, height: int) -> tuple[int, int]:
    """torchvision.transforms.functional._compute_resized_output_size, of an int."""
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = SIZE, int(SIZE * long / short)
    return (new_short, new_long) if width <= height else (new_long, new_short)


def centre(width: int, height: int) -> tuple[int, int, int, int]:
    """torchvision.transforms.functional.center_crop, as Pillow's box."""
    top = int(round((height - SIZE) / 2.0))  # noqa: RUF046 - as it stands there
    left = int(round((width - SIZE) / 2.0))  # noqa: RUF046
    return left, top, left + SIZE, top + SIZE


def expected_crop(image: Image.Image) -> np.ndarray:
    size = resized_size(*image.size)
    return np.asarray(image.resize(size, BICUBIC).crop(centre(*size)).convert("RGB"))


def expected_pixels(image: Image.Image) -> np.ndarray:
    channels = expected_crop(image).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    mean, std = (np.array(three, np.float32).reshape(3, 1, 1) for three in (OPENAI_MEAN, OPENAI_STD))
    return (channels - mean) / std


def picture(mode: str, width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise over a gradient: every pixel matters, and the resized values over- and undershoot."""
    random = np.random.RandomState(seed)
    pixels = random.randint(0, 256, (height, width, 4))
    pixels[..., 0] = (pixels[..., 0] + np.arange(width) * 3) % 256
    image = Image.fromarray(pixels.astype(np.uint8), "RGBA")
    if mode in ("I", "F"):
        return Image.fromarray(pixels[..., 0].astype("int32" if mode == "I" else "float32"))
    if mode.startswith(("P", "PA")):
        palette = Image.fromarray((pixels[..., 0] // 4).astype(np.uint8))
        palette.putpalette(random.randint(0, 256, 64 * 3).tolist())
        if mode == "P+transparency":
            palette.info["transparency"] = 3
        return palette.convert("PA") if mode == "PA" else palette
    if mode in ("CMYK", "YCbCr", "HSV"):
        return image.convert("RGB").convert(mode)
    return image.convert(mode)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


# --- pixels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "size",
    [(300, 200), (200, 300), (224, 224), (224, 301), (63, 61), (1, 1), (2, 1), (1, 3), (449, 448), (5, 260)],
)
def test_pixels_are_the_references_bit_for_bit(mode, size):
    image = picture(mode, *size)
    pixels = PLAIN(image)
    assert pixels.dtype == np.float32
    assert pixels.shape == (3, SIZE, SIZE)
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, expected_pixels(image))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MODES), st.integers(1, 400), st.integers(1, 400), st.integers(0, 99))
def test_pixels_of_any_size_are_the_references(mode, width, height, seed):
    image = picture(mode, width, height, seed)
    assert np.array_equal(PLAIN.crop(image), expected_crop(image))


def test_a_picture_is_not_changed():
    image = picture("P+transparency", 40, 30)
    before = image.copy()
    PLAIN(image)
    assert image == before
    assert image.info == before.info


def test_normalisation_is_openais():
    # White and black, from the constants by hand: (1 - 0.48145466) / 0.26862954, and so on.
    white = PLAIN(Image.new("RGB", (9, 9), "white"))[:, 0, 0]
    black = PLAIN(Image.new("RGB", (9, 9), "black"))[:, 0, 0]
    assert np.abs(white - [1.9303361, 2.0748837, 2.1458970]).max() < 1e-6
    assert np.abs(black - [-1.7922625, -1.7520971, -1.4802198]).max() < 1e-6


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="compares with torch: pip install torch")
def test_live_arithmetic_is_torchs():
    import torch

    image = picture("RGB", 256, 256)  # all 256 values
    crop = torch.from_numpy(expected_crop(image).copy())
    pixels = crop.permute(2, 0, 1).contiguous().to(torch.float32).div(255)  # ToTensor
    mean, std = (
        torch.as_tensor(three, dtype=torch.float32).view(-1, 1, 1) for three in (OPENAI_MEAN, OPENAI_STD)
    )
    pixels.sub_(mean).div_(std)  # Normalize
    assert len(np.unique(crop)) == 256
    assert np.array_equal(PLAIN(image), pixels.numpy())


def test_another_resolution_and_another_normalisation():
    image = picture("RGB", 90, 70)
    preprocess = Preprocess(64, Preprocessing(mean=(0, 0, 0), std=(1, 0.5, 0.25)))
    crop = image.resize((82, 64), BICUBIC).crop((9, 0, 73, 64))
    expected = np.asarray(crop).astype(np.float32).transpose(2, 0, 1) / np.float32(255)
    assert np.array_equal(preprocess(image), expected * np.array([[[1]], [[2]], [[4]]], np.float32))


def test_efficientnets_normalisation():
    rgb = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    expected = (rgb.astype(np.float64).transpose(2, 0, 1) - 127) / 128
    found = normalize(rgb, pretrained("clip_mini").preprocessing)
    np.testing.assert_allclose(found, expected, atol=1e-6)


# --- very wide and very tall -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(700, 7), (7, 700), (900, 14), (333, 5)])
def test_long_pictures_are_the_references_bit_for_bit(mode, size):
    assert max(size) > 64 * min(size)
    image = picture(mode, *size)
    assert np.array_equal(PLAIN.crop(image), expected_crop(image))


@pytest.mark.parametrize(
    ("mode", "size"),
    [
        ("L", (5000, 3)),
        ("RGB", (3000, 3)),
        ("RGBA", (3, 2000)),
        ("L", (8000, 2)),
        ("P", (20_000, 2)),  # more steps than are summed at a time
        ("1", (3, 9000)),
    ],
)
def test_longer_pictures_are_the_references_bit_for_bit(mode, size):
    image = picture(mode, *size)  # resized whole, 20,000 x 2 takes 500 MB
    assert np.array_equal(PLAIN.crop(image), expected_crop(image))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "CMYK"])
@pytest.mark.parametrize("size", [(10_000, 1), (1, 10_000), (8000, 3)])
def test_lines_are_the_references_by_its_two_passes(mode, size):
    """Pillow resizes rows, then columns, each column by itself: only the crop's own need the second pass."""
    image = picture(mode, *size)
    width, height = resized_size(*size)
    left, top, right, bottom = centre(width, height)
    straight = {"RGBA": "RGBa", "LA": "La"}.get(mode, mode)
    passed = image.convert(straight)
    if width > height:
        passed = passed.resize((width, image.height), BICUBIC).crop((left, 0, right, image.height))
        passed = passed.resize((SIZE, SIZE), BICUBIC)
    else:  # one pixel wide: every column is the same
        passed = passed.resize((1, height), BICUBIC).crop((0, top, 1, bottom)).resize((SIZE, SIZE), 0)
    assert np.array_equal(PLAIN.crop(image), np.asarray(passed.convert(mode).convert("RGB")))


_MEMORY_SCRIPT = """
import sys
from PIL import Image
from clip_common.config import Preprocessing
from clip_common.preprocessing.image import Preprocess

def peak():  # of this process alone; getrusage's would begin at its parent's
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

width, height, background = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "background"
preprocess = Preprocess(224, Preprocessing(background=(255, 255, 255) if background else None))
before = peak()
for mode in ("RGB", "RGBA", "P", "1"):
    assert preprocess(Image.new("RGB", (width, height), "red").convert(mode)).shape == (3, 224, 224)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's peak from /proc")
@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000), (1_000_000, 1), (1, 1_000_000)])
def test_lines_take_bounded_memory(size):
    command = [sys.executable, "-c", _MEMORY_SCRIPT, *map(str, size), "background"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 200  # MB; resized whole, the shortest of them would take 6000


_WIDE_MEMORY_SCRIPT = """
import sys
import numpy as np
from PIL import Image
from clip_common.config import Preprocessing
from clip_common.preprocessing.image import Preprocess

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

image = Image.new(sys.argv[1], (4000, 4000), 300)
preprocess = Preprocess(224, Preprocessing(background=(255, 255, 255)))
preprocess(Image.new("I;16", (300, 300), 300))
before = peak()
preprocess(image)
print((peak() - before) / 16)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's peak from /proc")
@pytest.mark.parametrize("mode", ["I;16", "I", "F", "RGB", "L"])
def test_a_large_image_takes_a_few_bytes_a_pixel(mode):
    ran = subprocess.run(
        [sys.executable, "-c", _WIDE_MEMORY_SCRIPT, mode],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 6  # bytes; as arrays of floats 15, as RGBA with its copies 12


def test_a_line_of_more_than_a_million_to_one_is_refused_by_name():
    with pytest.raises(ImageError, match=r"line\.png: 1000001 x 1 pixels"):
        open_image(Image.new("1", (1_000_001, 1)), "line.png")


# --- more than 8 bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_16_bit_greyscale_is_scaled_to_8_bits(mode):
    wide = np.arange(65536).reshape(256, 256)  # every value
    image = Image.frombytes(mode, (256, 256), wide.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    narrow = Image.fromarray(((wide + 128) // 257).astype(np.uint8))  # 65535 is 255, rounded; never a tie
    assert np.array_equal(PLAIN(image), expected_pixels(narrow))


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("TIFF", {})])
def test_16_bit_greyscale_files(form, options):
    wide = (np.arange(60 * 50) * 21 % 65536).astype(np.uint16).reshape(50, 60)
    image = open_image(encoded(Image.fromarray(wide), form, **options), "x")
    narrow = Image.fromarray(((wide.astype(int) + 128) // 257).astype(np.uint8))
    assert np.array_equal(PLAIN(image), expected_pixels(narrow))


@pytest.mark.parametrize("kind", ["int32", "float32"])
def test_wide_integers_and_floats_are_taken_for_16_bits(kind):
    wide = np.arange(65536).reshape(256, 256)
    narrow = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    assert np.array_equal(PLAIN(Image.fromarray(wide.astype(kind))), expected_pixels(narrow))


def test_a_value_just_below_zero_does_not_turn_a_picture_black():
    values = np.asarray(picture("L", 50, 40)).astype("int32")
    values[3, 4] = -1
    image = Image.fromarray(values)
    assert np.array_equal(PLAIN(image), expected_pixels(image))


# Values 0 to 255 as people store them, and what they hold: the largest of each is white.
_WIDE = {
    "uint16": lambda grey: grey.astype("uint16") * 257,
    "10 bits in 16": lambda grey: (grey.astype(int) * 1023 // 255).astype("uint16"),
    "12 bits in 16": lambda grey: grey.astype("uint16") * 16,
    "14 bits in 16": lambda grey: (grey.astype(int) * 16383 // 255).astype("uint16"),
    "8 bits in 16": lambda grey: grey.astype("uint16"),
    "int16 of 12 bits": lambda grey: grey.astype("int16") * 16,
    "int16 signed": lambda grey: (grey.astype(int) * 257 - 32768).astype("int16"),
    "int32 of 16 bits": lambda grey: grey.astype("int32") * 257,
    "int32 of 24 bits": lambda grey: grey.astype("int32") * 65793,
    "int32 full": lambda grey: (grey.astype("int64") * (2**31 - 1) // 255).astype("int32"),
    "int32 signed": lambda grey: (grey.astype("int64") * (2**32 - 1) // 255 - 2**31).astype("int32"),
    "uint32 full": lambda grey: (grey.astype("int64") * (2**32 - 1) // 255).astype("uint32"),
    "int64": lambda grey: grey.astype("int64"),
    "float16 to 1": lambda grey: (grey / 255).astype("float16"),
    "float32 to 1": lambda grey: (grey / 255).astype("float32"),
    "float64 to 1": lambda grey: grey / 255,
    "float32 to 255": lambda grey: grey.astype("float32"),
    "float32 to 65535": lambda grey: grey.astype("float32") * 257,
    "float32 signed": lambda grey: (grey.astype("float32") - 127.5) / 127.5,
    "float32 to 1, overshooting": lambda grey: (grey / 255 * 1.1 - 0.05).astype("float32"),
    "float32 to 255, overshooting": lambda grey: (grey * 1.1 - 12).astype("float32"),
}
_PIL_HOLDS = ("uint16", "int32", "float32")


@pytest.mark.parametrize("form", _WIDE)
def test_wide_greyscale_is_neither_black_nor_white(form):
    grey = np.asarray(picture("L", 60, 50)).copy()
    grey[0, :2] = 0, 255
    wide = _WIDE[form](grey)
    expected = PLAIN.crop(Image.fromarray(grey)).astype(int)
    routes = {"array": wide}
    if wide.dtype in _PIL_HOLDS:
        routes |= {"PIL": Image.fromarray(wide), "TIFF": encoded(Image.fromarray(wide), "TIFF")}
        if wide.dtype == "uint16":
            routes["PNG"] = encoded(Image.fromarray(wide), "PNG")
    seen = {name: PLAIN.crop(PLAIN.open(source, name)) for name, source in routes.items()}
    for name, crop in seen.items():
        assert np.abs(crop - expected).max() <= (40 if "overshooting" in form else 3), name
        assert np.array_equal(crop, seen["array"]), name


@pytest.mark.parametrize("form", _WIDE)
def test_wide_colours_go_by_the_same_rule(form):
    colours = np.asarray(picture("RGB", 60, 50)).copy()
    colours[0, :2] = [[0] * 3, [255] * 3]
    seen = PLAIN.crop(open_image(_WIDE[form](colours[..., ::-1]), "x"))
    expected = PLAIN.crop(Image.fromarray(colours)).astype(int)
    assert np.abs(seen - expected).max() <= (40 if "overshooting" in form else 3)


@pytest.mark.parametrize("form", ["uint16", "float32 to 1"])
def test_wide_colours_with_alpha(form):
    bgra = np.asarray(picture("RGBA", 60, 50))[..., [2, 1, 0, 3]]
    images = [open_image(array, "x") for array in (_WIDE[form](bgra), bgra)]
    assert np.array_equal(*map(np.asarray, images))


def test_booleans_are_black_and_white():
    grey = np.asarray(picture("L", 60, 50)) > 127
    expected = PLAIN.crop(Image.fromarray(grey * np.uint8(255)))
    assert np.array_equal(PLAIN.crop(open_image(grey, "x")), expected)


def test_values_that_are_not_numbers_cost_only_themselves():
    values = np.asarray(picture("L", 60, 50)).astype("float32") / 255
    expected = PLAIN.crop(Image.fromarray(np.rint(values * 255).astype("uint8")))
    for odd, meant in ((np.nan, 0), (np.inf, 1), (-np.inf, 0)):
        with_odd, without = values.copy(), values.copy()
        with_odd[7, 9], without[7, 9] = odd, meant
        seen = PLAIN.crop(Image.fromarray(with_odd))
        assert np.array_equal(seen, PLAIN.crop(Image.fromarray(without)))
        assert np.abs(seen.astype(int) - expected).mean() < 2
    for constant in (0.0, np.nan):
        assert (PLAIN.crop(Image.fromarray(np.full((9, 9), constant, "float32"))) == 0).all()


@pytest.mark.parametrize("background", [None, (255, 255, 255)])
def test_16_bit_greyscale_with_a_transparent_value_is_as_with_8_bits(background):
    grey = np.asarray(picture("L", 60, 50)).copy()
    grey[10:30] = 0
    narrow = encoded(Image.fromarray(grey), "PNG", transparency=0)
    wide = encoded(Image.fromarray(grey.astype("uint16") * 257), "PNG", transparency=0)
    preprocess = Preprocess(64, Preprocessing(background=background))
    opened = [preprocess.open(content, "x") for content in (narrow, wide)]
    assert Image.open(io.BytesIO(wide)).mode == "I;16"
    assert np.array_equal(*map(preprocess.crop, opened))


def test_what_people_see_is_as_light_as_what_the_model_sees():
    grey = np.asarray(picture("L", 60, 50)).copy()
    grey[0, :2] = 0, 255
    for form, widen in _WIDE.items():
        if "overshooting" not in form:
            shown = for_display(widen(grey), "x", 1000)
            assert shown.mode == "RGBA"
            assert np.abs(np.asarray(shown)[..., 0].astype(int) - grey).max() <= 1, form
    assert for_display(picture("RGB", 900, 3), "x", 256).size == (256, 1)
    assert for_display(picture("RGB", 1, 1), "x", 256).size == (1, 1)
    for mode in (*MODES, "I;16", "RGBX", "La", "RGBa", "LAB"):
        image = Image.new(mode, (9, 7)) if mode not in MODES else picture(mode, 9, 7)
        assert for_display(image, "x", 4).size == (4, 3)


# --- EXIF rotation -----------------------------------------------------------------------------------

_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", _UPRIGHT)
def test_exif_rotation_is_an_option_and_off(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = picture("RGB", 60, 41)
    image = open_image(encoded(plain, "PNG", exif=exif), "x")
    assert np.array_equal(PLAIN.crop(image), expected_crop(plain))
    upright = Image.fromarray(np.ascontiguousarray(_UPRIGHT[orientation](np.asarray(plain))))
    turning = Preprocess(SIZE, Preprocessing(), exif_rotation=True)
    assert np.array_equal(turning.crop(image), expected_crop(upright))


def test_exif_rotation_without_a_tag_changes_nothing():
    image = picture("RGB", 60, 41)
    turning = Preprocess(SIZE, Preprocessing(), exif_rotation=True)
    assert np.array_equal(turning.crop(image), expected_crop(image))


# --- fast_jpeg ---------------------------------------------------------------------------------------


def test_fast_jpeg_decodes_large_photographs_smaller_and_is_off():
    exact, fast = (Preprocess(SIZE, Preprocessing(), fast_jpeg=given) for given in (False, True))
    with Image.open(ROOT / "examples" / "photo_cat.jpg") as photo:
        large = encoded(photo.resize((2400, 1800)), "JPEG", quality=90)
    assert exact.open(large, "x").size == (2400, 1800)
    assert fast.open(large, "x").size == (600, 450)  # an eighth would be below twice the resolution
    far = np.abs(fast.crop(fast.open(large, "x")).astype(int) - exact.crop(exact.open(large, "x")))
    assert 0 < far.mean() < 2


@pytest.mark.parametrize(("size", "kind"), [((800, 600), "JPEG"), ((2400, 1800), "PNG")])
def test_fast_jpeg_leaves_the_rest_alone(size, kind):
    fast = Preprocess(SIZE, Preprocessing(), fast_jpeg=True)
    given = encoded(picture("RGB", *size), kind)
    assert np.array_equal(np.asarray(fast.open(given, "x")), np.asarray(open_image(given, "x")))


# --- background --------------------------------------------------------------------------------------

WHITE = Preprocess(64, Preprocessing(background=(255, 255, 255)))


def transparent(alpha: int, form: str) -> Image.Image:
    """A image of one colour, (40, 90, 200) or grey 90, with one alpha, in each form that has one."""
    if form == "RGBA":
        return Image.new("RGBA", (50, 40), (40, 90, 200, alpha))
    if form == "LA":
        return Image.new("LA", (50, 40), (90, alpha))
    palette = Image.new("P", (50, 40), 5)
    palette.putpalette([0, 0, 0] * 5 + [40, 90, 200])
    palette.info["transparency"] = bytes([255] * 5 + [alpha])
    return palette


@pytest.mark.parametrize("form", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("alpha", [0, 64, 128, 255])
def test_a_background_shows_through_by_alpha(form, alpha):
    colour = np.array([90] * 3 if form == "LA" else [40, 90, 200])
    blended = colour * alpha / 255 + 255 * (255 - alpha) / 255
    seen = WHITE.crop(transparent(alpha, form))
    assert np.ptp(seen.reshape(-1, 3), axis=0).max() == 0
    assert np.abs(seen[0, 0] - blended).max() <= (0.5 if alpha in (0, 255) else 2)  # premultiplied in 8 bits
    assert WHITE.crop(transparent(alpha, form)).shape == (64, 64, 3)


def test_a_background_under_a_colour_that_png_declares_transparent():
    plain = Image.new("RGB", (50, 40), (40, 90, 200))
    image = open_image(encoded(plain, "PNG", transparency=(40, 90, 200)), "x")
    assert (WHITE.crop(image) == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "PA", "RGB", "CMYK", "YCbCr", "HSV", "I", "F"])
def test_a_background_does_not_show_through_an_opaque_picture(mode):
    image = picture(mode, 300, 280)
    with_background = Preprocess(SIZE, Preprocessing(background=(1, 200, 3)))
    # Not the reference's pixels: colours are resized, and palettes are made colours first.
    assert np.array_equal(with_background.crop(image), expected_crop(image.convert("RGB")))


def test_a_background_under_shapes_is_blended_after_resizing():
    image = picture("RGBA", 300, 200)
    resized = image.resize((96, 64), BICUBIC).crop((16, 0, 80, 64))
    canvas = Image.new("RGBA", (64, 64), (10, 20, 30, 255))
    expected = np.asarray(Image.alpha_composite(canvas, resized).convert("RGB"))
    assert np.array_equal(Preprocess(64, Preprocessing(background=(10, 20, 30))).crop(image), expected)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # which the reference drops
def test_openais_models_have_no_background_and_clip_mini_has_white():
    for name in ("clip_rn50", "clip_rn101", "clip_vit_b32"):
        assert pretrained(name).preprocessing == Preprocessing(OPENAI_MEAN, OPENAI_STD, background=None)
    assert pretrained("clip_mini").preprocessing.background == (255, 255, 255)
    # Without a background alpha is dropped, as the reference does.
    assert (PLAIN.crop(transparent(255, "RGBA")) == (40, 90, 200)).all()
    assert (PLAIN.crop(transparent(255, "P")) == (40, 90, 200)).all()


# --- files and bytes ---------------------------------------------------------------------------------

FORMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("RGB", "JPEG", {}),
    "jpeg progressive": ("RGB", "JPEG", {"progressive": True, "quality": 80}),
    "jpeg grey": ("L", "JPEG", {}),
    "jpeg CMYK": ("CMYK", "JPEG", {}),
    "png": ("RGB", "PNG", {}),
    "png alpha": ("RGBA", "PNG", {}),
    "png palette": ("P+transparency", "PNG", {}),
    "png bits": ("1", "PNG", {}),
    "png grey alpha": ("LA", "PNG", {}),
    "gif": ("P", "GIF", {}),
    "webp": ("RGB", "WEBP", {}),
    "webp alpha": ("RGBA", "WEBP", {"lossless": True}),
    "tiff": ("RGB", "TIFF", {}),
    "tiff compressed": ("CMYK", "TIFF", {"compression": "tiff_lzw"}),
    "tiff float": ("F", "TIFF", {}),
    "bmp": ("RGB", "BMP", {}),
    "bmp palette": ("P", "BMP", {}),
    "ppm": ("RGB", "PPM", {}),
    "tga": ("RGBA", "TGA", {}),
    "jpeg 2000": ("RGB", "JPEG2000", {}),
    "mpo": ("RGB", "MPO", {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_files_of_every_format_give_the_references_pixels(form, tmp_path):
    mode, kind, options = FORMS[form]
    data = encoded(picture(mode, 83, 61), kind, **options)
    expected = expected_pixels(Image.open(io.BytesIO(data)))
    path = tmp_path / "image.jpg"  # told by content, whatever the name
    path.write_bytes(data)
    sources: list[Any] = [data, bytearray(data), path, str(path)]
    for source in sources:
        assert np.array_equal(PLAIN(open_image(source, "x")), expected)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(form):
    first, second = Image.new("RGB", (40, 30), (200, 30, 10)), Image.new("RGB", (40, 30), (0, 99, 255))
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(first, form, save_all=True, append_images=[second, first], **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames") == 3  # noqa: B009 - not every format has it
    image = open_image(data, "x")
    assert (PLAIN.crop(image) == (200, 30, 10)).all()


def test_a_decoded_picture_does_not_need_its_file_any_more(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(encoded(picture("RGB", 30, 20), "PNG"))
    image = open_image(path, "x")
    path.unlink()
    assert np.array_equal(PLAIN(image), expected_pixels(picture("RGB", 30, 20)))


def test_a_pil_picture_that_is_not_loaded_yet():
    data = encoded(picture("RGB", 30, 20), "PNG")
    assert np.array_equal(
        PLAIN(open_image(Image.open(io.BytesIO(data)), "x")), expected_pixels(picture("RGB", 30, 20))
    )


# --- arrays ------------------------------------------------------------------------------------------


def test_arrays_are_bgr():
    rgb = picture("RGB", 60, 40)
    bgr = np.asarray(rgb)[:, :, ::-1]  # a view with a negative stride, too
    assert np.array_equal(PLAIN(open_image(bgr, "x")), expected_pixels(rgb))
    blue = np.zeros((10, 10, 3), np.uint8)
    blue[:, :, 0] = 255
    assert (PLAIN.crop(open_image(blue, "x")) == (0, 0, 255)).all()


def test_arrays_of_grey_and_with_alpha():
    grey = picture("L", 60, 40)
    for array in (np.asarray(grey), np.asarray(grey)[:, :, None]):
        assert np.array_equal(PLAIN(open_image(array, "x")), expected_pixels(grey))
    colours = picture("RGBA", 60, 40)
    bgra = np.asarray(colours)[:, :, [2, 1, 0, 3]]
    assert np.array_equal(PLAIN(open_image(bgra, "x")), expected_pixels(colours))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((10, 10, 3), complex), "complex128.*uint8"),
        (np.full((10, 10, 3), None), "object.*uint8"),
        (np.full((10, 10, 3), "a"), "<U1.*uint8"),
        (np.zeros((3, 10, 10), np.uint8), r"shape \[3, 10, 10\]"),
        (np.zeros((10, 10, 2), np.uint8), r"shape \[10, 10, 2\]"),
        (np.zeros((2, 10, 10, 3), np.uint8), r"shape \[2, 10, 10, 3\]"),
        (np.zeros(10, np.uint8), r"shape \[10\]"),
        (np.uint8(3) * np.ones((), np.uint8), r"shape \[\]"),
        (np.zeros((0, 10, 3), np.uint8), "empty"),
        (np.zeros((10, 10, 0), np.uint8), "empty"),
    ],
)
def test_arrays_that_are_no_bgr_picture(array, said):
    with pytest.raises(ImageError, match=rf"^images\[3\]: .*{said}"):
        open_image(np.asarray(array), "images[3]")


# --- what is not a picture ---------------------------------------------------------------------------


def claims_to_be_huge() -> bytes:
    """A PNG of a few bytes whose header promises 60000 x 60000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header) - 4) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xaeB`\x82"


def bad_sources(folder: Path) -> dict[str, tuple[Any, str]]:
    whole = encoded(picture("RGB", 200, 200), "JPEG")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.jpg").write_text("this is no image\n" * 20)
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    eps = encoded(picture("RGB", 20, 20), "EPS")
    return {
        "missing": (folder / "missing.jpg", "no such file"),
        "folder": (folder, "folder"),
        "empty": (folder / "empty.jpg", "empty"),
        "text": (folder / "notes.jpg", "supported format"),
        "truncated": (folder / "cut.jpg", "cannot be decoded"),
        "name with a zero byte": ("a\0b.jpg", "cannot be"),
        "empty bytes": (b"", "empty"),
        "text bytes": (b"this is no image\n" * 20, "supported format"),
        "truncated bytes": (whole[:-5000], "cannot be decoded"),
        "header only": (encoded(picture("RGB", 20, 20), "PNG")[:20], "."),
        "PNG cut in a chunk": (encoded(picture("RGB", 99, 99), "PNG")[:-500], "cannot be decoded"),
        "EPS": (eps, "supported format"),
        "PDF": (encoded(picture("RGB", 20, 20), "PDF"), "supported format"),
        "bomb": (claims_to_be_huge(), "cannot be decoded.*pixels"),
        "None": (None, "NoneType"),
        "a list": ([1, 2], "list"),
        "a number": (7, "int"),
        "PIL without pixels": (Image.new("RGB", (0, 0)), "0 x 0"),
        "PIL without rows": (Image.new("RGB", (5, 0)), "5 x 0"),
        "PIL truncated": (Image.open(io.BytesIO(whole[:-5000])), "cannot be decoded"),
    }


@pytest.mark.parametrize(
    "kind",
    "missing|folder|empty|text|truncated|name with a zero byte|empty bytes|text bytes|truncated bytes|"
    "header only|PNG cut in a chunk|EPS|PDF|bomb|None|a list|a number|PIL without pixels|PIL without rows|"
    "PIL truncated".split("|"),
)
def test_what_is_no_picture_is_named_with_its_fault(kind, tmp_path):
    source, said = bad_sources(tmp_path)[kind]
    with pytest.raises(ImageError, match=rf"(?s)^the image: .*{said}"):
        open_image(source, "the image")


def test_eps_never_starts_a_program(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **_: started.append(args))
    monkeypatch.setattr(subprocess, "check_call", lambda *args, **_: started.append(args))
    with pytest.raises(ImageError):
        open_image(encoded(picture("RGB", 20, 20), "EPS"), "x.eps")
    assert started == []


@pytest.mark.parametrize(
    "form", ["jpeg", "png palette", "gif", "webp", "tiff compressed", "bmp", "jpeg 2000", "tga"]
)
def test_damaged_files_are_a_picture_or_an_error_and_nothing_else(form):
    mode, kind, options = FORMS[form]
    whole = encoded(picture(mode, 31, 22), kind, **options)
    random = np.random.RandomState(len(form))
    for _ in range(40):
        damaged = bytearray(whole[: random.randint(1, len(whole) + 1)])
        for _ in range(random.randint(0, 4)):
            damaged[random.randint(min(len(damaged), 400))] = random.randint(256)
        try:
            image = open_image(bytes(damaged), "x")
        except ImageError as error:
            assert str(error).startswith("x: ")
        else:
            assert math.prod(image.size) > 0


def test_resize_and_crop_keeps_the_mode():
    for mode in MODES:
        image = picture(mode, 50, 40)
        assert resize_and_crop(image, 32).mode == image.mode
        assert resize_and_crop(image, 32).size == (32, 32)


# --- one image's fault is its own ----------------------------------------------------------------------

TURNING = Preprocess(64, Preprocessing(background=(255, 255, 255)), exif_rotation=True)


def tiff_tags(entries: list[tuple[int, int, int, bytes]], data: bytes = b"") -> bytes:
    """EXIF of these tags, each its number, type, count and value (4 bytes, or where it is in `data`)."""
    begins = 8 + 2 + 12 * len(entries) + 4
    body = b"".join(
        struct.pack("<HHI", tag, kind, count) + (value or struct.pack("<I", begins))
        for tag, kind, count, value in entries
    )
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + data


_TURN = (0x112, 3, 1, struct.pack("<HH", 6, 0))
HEALTHY_TURN_AMONG_DAMAGE = {
    "negative rational": tiff_tags([_TURN, (0x11A, 5, 1, b"")], struct.pack("<Ii", 1, -1)),
    "rational out of range": tiff_tags([_TURN, (0x11A, 10, 1, b"")], struct.pack("<ii", -1, 0)),
    "rational as text": tiff_tags([(0x10E, 5, 1, b""), _TURN], struct.pack("<II", 1, 2)),
    "negative short": tiff_tags([_TURN, (0x11C, 8, 1, struct.pack("<hh", -3, 0))]),
    "a folder that is text": tiff_tags([_TURN, (0x8769, 2, 4, b"abc\0")]),
    "a folder beyond the end": tiff_tags([_TURN, (0x8769, 9, 1, struct.pack("<i", -5))]),
}


@pytest.mark.parametrize("damage", HEALTHY_TURN_AMONG_DAMAGE)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_damage_elsewhere_in_the_exif_does_not_keep_an_image_from_turning(damage, form):
    options = {"lossless": True} if form == "WEBP" else {}
    content = encoded(picture("RGB", 60, 41), form, exif=HEALTHY_TURN_AMONG_DAMAGE[damage], **options)
    with Image.open(io.BytesIO(content)) as stored:
        expected = Preprocess(64, TURNING.settings)(stored.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(TURNING.pixels(content, "x"), expected)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage!", b"Exif\0\0\0\x08\0\x02\x01\x12\0\x03", b"Exif\0\0II*\0"]
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_that_cannot_be_read_is_that_images_error_and_no_matter_without_rotation(exif, form):
    content = encoded(picture("RGB", 60, 41), form, exif=exif)
    for _ in range(2):
        with pytest.raises(ImageError, match=r"^x\.jpg: .*EXIF is damaged.*exif_rotation off"):
            TURNING.pixels(content, "x.jpg")
    assert Preprocess(64, TURNING.settings).pixels(content, "x.jpg").shape == (3, 64, 64)


def test_a_turned_image_is_not_turned_again():
    exif = Image.Exif()
    exif[0x112] = 6
    image = Image.open(io.BytesIO(encoded(picture("RGB", 60, 41), "PNG", exif=exif)))
    once = TURNING.open(image, "x")
    assert once.size == (41, 60)
    assert np.array_equal(TURNING(once), TURNING(image))


TWO_HEADERS = {
    "palette, then colours": (3, b"\0\x10\xff", 2, 3),
    "colours, then grey": (2, b"\0\1\0\2\0\3", 0, 1),
    "grey, then colours": (0, b"\0\1", 2, 3),
    "palette, then grey": (3, b"\0\x10\xff", 0, 1),
}


@pytest.mark.parametrize("kind", TWO_HEADERS)
@pytest.mark.parametrize("preprocess", [PLAIN, TURNING], ids=["plain", "background"])
def test_a_png_with_two_headers_is_pixels_or_its_own_error(kind, preprocess):
    content = two_headers(*TWO_HEADERS[kind])
    try:
        assert preprocess.pixels(content, "x.png").dtype == np.float32
    except ImageError as error:
        assert str(error).startswith("x.png: cannot be ")
        assert "\n" not in str(error)


# --- how large a decoded image is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (png(header(0, 13_000)), (13_000, 13_000)),
        (ico(png(header(0, 13_000))), (13_000, 13_000)),
        (ico(struct.pack("<IiiHHIIiiII", 40, 9000, 18_000, 1, 32, *[0] * 6)), (9000, 18_000)),
        (tiled(2048), (2048, 2048)),
        (encoded(Image.new("RGB", (70, 90)), "JPEG"), (70, 90)),
        (encoded(Image.new("RGBA", (64, 64)), "ICO", sizes=[(16, 16), (48, 48)]), (48, 48)),
        (encoded(Image.new("L", (70, 90)), "TIFF"), (70, 90)),
    ],
    ids=["png", "png in ico", "bitmap in ico", "tile", "jpeg", "ico", "tiff"],
)
def test_what_decoding_takes_is_known_before_it(content, size):
    assert decoded_size(io.BytesIO(content), readable_formats()) == size


@pytest.mark.parametrize("content", [tiled(2048), ico(png(header(0, 2048)))], ids=["tile", "png in ico"])
def test_what_decoding_would_take_is_refused_before_it(content, monkeypatch):
    """Pillow's own limit looks at the sizes in headers, which are small here."""
    monkeypatch.setattr("clip_common.preprocessing.image._MAX_PIXELS", 2048 * 2048 - 1)
    with pytest.raises(ImageError, match=r"it: cannot be decoded \(2048 x 2048 pixels, at most 4,194,303"):
        open_image(content, "it")


@pytest.mark.parametrize(
    "content", [ico(png(header(0, 60_000))), ico(png(header(2, 14_000))), png(header(0, 40_000))]
)
def test_a_bomb_is_refused_whatever_its_wrapping(content):
    with pytest.raises(ImageError, match=r"^x\.ico: cannot be decoded .*pixels"):
        open_image(content, "x.ico")


# --- files that are no files ---------------------------------------------------------------------------


def test_paths_that_cannot_be_read_are_one_line_each(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, said in {
        tmp_path / "pipe.png": "is a pipe or a device",
        "/dev/null": "is a pipe or a device",
        "x" * 300: "File name too long",
        "x" * 5000: "File name too long",
        tmp_path: "is a folder",
        tmp_path / "none.png": "no such file",
        "~none.png": "no such file",
        "a\0b": "null",
    }.items():
        with pytest.raises(ImageError, match=said) as caught:
            open_image(path, str(path))
        assert "\n" not in str(caught.value)


def test_a_file_without_permission_is_named(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(encoded(picture("L", 5, 5), "PNG"))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")  # root, who runs tests in containers, may read all

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"^x\.png: cannot be read \(Permission denied\)$"):
        open_image(tmp_path / "x.png", "x.png")


def test_one_lazy_image_is_decoded_once_by_many_threads():
    content = encoded(picture("RGB", 900, 900), "PNG")
    expected = PLAIN.pixels(content, "x")
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            image = Image.open(io.BytesIO(content))
            for pixels in pool.map(lambda _, image=image: PLAIN.pixels(image, "x"), range(8)):
                assert np.array_equal(pixels, expected)


# --- the whole image, squashed -------------------------------------------------------------------------

SQUASHED = Preprocess(SIZE, Preprocessing(resize="squash"))


@pytest.mark.parametrize("size", [(500, 375), (31, 400), (SIZE, SIZE), (1, 9), (3000, 20)])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK"])
def test_squashed_pixels_are_torchvisions(size: tuple[int, int], mode: str) -> None:
    """`Resize((R, R), BICUBIC)` on a PIL image is Pillow's own, in the image's mode; then comes RGB."""
    pixels = np.random.RandomState(1).randint(0, 256, (*size[::-1], 3)).astype("uint8")
    image = Image.fromarray(pixels).convert(mode)
    expected = image.resize((SIZE, SIZE), BICUBIC).convert("RGB")
    assert np.array_equal(SQUASHED.crop(image), np.asarray(expected))


def test_squashing_keeps_what_a_crop_loses() -> None:
    image = Image.new("RGB", (900, 300))
    image.paste((255, 255, 255), (0, 0, 100, 300))
    assert SQUASHED.crop(image)[:, : SIZE // 10].mean() > 250
    assert PLAIN.crop(image).max() == 0
