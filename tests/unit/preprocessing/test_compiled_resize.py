"""The compiled resizing: the bytes that Pillow makes, and when it is loaded."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from clip_common.config import Preprocessing
from clip_common.preprocessing import resize
from clip_common.preprocessing.image import Preprocess
from clip_common.preprocessing.resize import Compiled
from tests.support.paths import ROOT

BICUBIC = Image.Resampling.BICUBIC
COMPILED_MODES = ["RGB", "RGBA", "CMYK"]
MODES = [*COMPILED_MODES, "1", "L", "P", "LA", "PA", "RGBX", "YCbCr", "HSV", "LAB", "I", "I;16", "F"]
SETTINGS = [Preprocessing(), Preprocessing(resize="squash"), Preprocessing(background=(255, 255, 255))]
NEVER = 10**18


def noise(mode: str, width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise with much black and white, so that sums leave 0 to 255 on both sides."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 4), np.uint8)
    pixels[rng.random((height, width)) < 0.3] = rng.choice([0, 255])
    if mode in ("I", "F", "I;16"):
        kind = {"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]
        return Image.fromarray(pixels[..., 0].astype(kind) * kind(7))
    if mode == "LAB":
        return Image.frombytes("LAB", (width, height), pixels[..., :3].tobytes())
    image = Image.fromarray(pixels)
    if mode in ("P", "PA"):
        return image.convert("RGB").quantize(32, dither=Image.Dither.NONE).convert(mode)
    return image if mode == "RGBA" else image.convert("LA" if mode == "LA" else "RGB").convert(mode)


def squares(
    count: int, largest: int
) -> Iterator[tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]]:
    """Sizes before and after, each order of size as often, some of few pixels; and a square of the result."""
    rng = np.random.default_rng(count)

    def length(top: int) -> int:
        least = 1 if rng.random() < 0.1 else 16
        return round(np.exp(rng.uniform(np.log(least), np.log(top))))

    for _ in range(count):
        before, after = (length(largest), length(largest)), (length(600), length(600))
        side = int(rng.integers(1, min(after), endpoint=True))
        left, top = (int(rng.integers(0, longer - side, endpoint=True)) for longer in after)
        yield before, after, (left, top, left + side, top + side)


def compare(compiled: Compiled, count: int, largest: int) -> int:
    """Hold so many sizes against Pillow; returns how many were not left to it."""
    done = 0
    for seed, (before, after, box) in enumerate(squares(count, largest)):
        mode = COMPILED_MODES[seed % len(COMPILED_MODES)]
        image = noise(mode, *before, seed)
        found = compiled(image, after, box)
        if found is not None:
            expected = image.resize(after, BICUBIC).crop(box)
            assert (found.mode, found.size) == (mode, expected.size)
            assert found.tobytes() == expected.tobytes(), (mode, before, after, box)
            done += 1
    return done


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    pytest.importorskip("numba")
    compiled = Compiled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIP_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
        compiled.load()
    assert compiled._resize is not None
    return compiled


def test_sizes_by_the_hundred_are_pillows_to_the_byte(loaded: Compiled) -> None:
    assert compare(loaded, 240, 300) > 120


@pytest.mark.slow
def test_sizes_by_the_thousand_are_pillows_to_the_byte(loaded: Compiled) -> None:
    assert compare(loaded, 2000, 1200) > 1000


@pytest.mark.parametrize("settings", SETTINGS, ids=["crop", "squash", "background"])
@pytest.mark.parametrize("mode", MODES)
def test_pixels_are_the_same_with_and_without_it(
    loaded: Compiled, monkeypatch: pytest.MonkeyPatch, mode: str, settings: Preprocessing
) -> None:
    preprocess = Preprocess(64, settings)
    for size in ((1, 1), (3, 90), (64, 64), (64, 80), (63, 200), (333, 250), (250, 333), (900, 12)):
        image = noise(mode, *size)
        monkeypatch.setattr(resize, "compiled", Compiled(NEVER))
        expected = preprocess.pixels(image, "by Pillow")
        monkeypatch.setattr(resize, "compiled", loaded)
        assert np.array_equal(preprocess.pixels(image, "compiled"), expected), size


@pytest.mark.parametrize("mode", COMPILED_MODES)
def test_photographs_are_not_left_to_pillow(loaded: Compiled, mode: str) -> None:
    image = noise(mode, 400, 300)
    image.info["dpi"] = (72, 72)
    found = loaded(image, (298, 224), (37, 0, 261, 224))
    assert found is not None
    assert found.info == image.info


def test_an_image_in_several_blocks_of_memory(loaded: Compiled) -> None:
    image = noise("RGB", 2600, 2000)  # Pillow's blocks are 16 MiB
    found, box = loaded(image, (291, 224), (33, 0, 257, 224)), (33, 0, 257, 224)
    assert found is not None
    assert found.tobytes() == image.resize((291, 224), BICUBIC).crop(box).tobytes()


def test_threads_do_not_disturb_each_other(loaded: Compiled) -> None:
    images = [noise("RGB", 90 + 7 * number, 120, number) for number in range(24)]
    square = (64, 64)

    def done(image: Image.Image) -> bytes:
        found = loaded(image, square, (0, 0, *square))
        assert found is not None
        return found.tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(done, images)) == [image.resize(square, BICUBIC).tobytes() for image in images]


# --- when it is loaded ---------------------------------------------------------------------------------


class Noted(Compiled):
    """Counts how often it would be loaded."""

    loads = 0

    def load(self) -> None:
        self.loads += 1


def test_it_is_loaded_once_and_after_enough_work() -> None:
    compiled, image = Noted(worth=3 * (300 * 400 + 298 * 300)), Image.new("RGB", (400, 300))
    for _ in range(3):
        assert compiled(image, (298, 224), (0, 0, 224, 224)) is None
    assert compiled.loads == 0
    for _ in range(3):
        compiled(image, (298, 224), (0, 0, 224, 224))
    assert compiled.loads == 1


def test_one_photograph_of_any_size_does_not_load_it() -> None:
    compiled = Noted()
    compiled(Image.new("RGB", (12000, 10000)), (268, 224), (0, 0, 224, 224))
    assert compiled.loads == 0


def test_a_few_photographs_do_not_import_numba() -> None:
    code = (
        "import sys\nfrom PIL import Image\nfrom clip_common.config import Preprocessing\n"
        "from clip_common.preprocessing.image import Preprocess\n"
        "preprocess = Preprocess(224, Preprocessing())\n"
        "for _ in range(3): preprocess(Image.new('RGB', (4000, 3000)))\n"
        "sys.exit('numba' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def instead(monkeypatch: pytest.MonkeyPatch, **names: object) -> None:
    """Another module in the place of the compiled one."""
    name = "clip_common.preprocessing.compiled_resize"
    module = ModuleType(name)
    module.__dict__.update(names)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("clip_common.preprocessing.compiled_resize", module, raising=False)


def test_what_differs_from_pillow_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    instead(monkeypatch, AVAILABLE=True, equals_pillow=lambda: False, resize_and_crop=None)
    compiled, image = Compiled(), noise("RGB", 40, 30)
    with caplog.at_level(logging.WARNING):
        compiled.load()
    assert "differ from Pillow's" in caplog.text
    assert compiled(image, (20, 20), (0, 0, 20, 20)) is None


def test_a_numba_that_fails_is_said_and_pillow_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> bool:
        raise ImportError("Numba needs NumPy 2.3 or less")

    instead(monkeypatch, AVAILABLE=True, equals_pillow=failing)
    compiled = Compiled()
    with caplog.at_level(logging.WARNING):
        compiled.load()
    assert "numba cannot be used (Numba needs NumPy 2.3 or less)" in caplog.text
    assert compiled(noise("RGB", 40, 30), (20, 20), (0, 0, 20, 20)) is None


def test_without_numba_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("numba", "llvmlite"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "clip_common.preprocessing.compiled_resize", raising=False)
    monkeypatch.delattr("clip_common.preprocessing.compiled_resize", raising=False)
    with caplog.at_level(logging.WARNING):
        Compiled().load()
    assert caplog.text == ""


# --- its cache -----------------------------------------------------------------------------------------

LOAD = (
    "from clip_common.preprocessing.resize import compiled\ncompiled.load()\n"
    "assert compiled._resize\nfrom clip_common.preprocessing import compiled_resize\n"
    "import numba\nassert numba.config.CACHE_DIR == ''\n"
    "print(sum(compiled_resize._resample.stats.cache_hits.values()))"
)


def hits(cache: Path) -> str:
    environment = {"PATH": "/usr/bin:/bin", "CLIP_HUB_CACHE": str(cache), "HOME": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_second_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    assert hits(tmp_path) == "0"
    assert list((tmp_path / "numba").rglob("*.nbc"))
    assert hits(tmp_path) == "1"
