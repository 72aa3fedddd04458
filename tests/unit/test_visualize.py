from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from clip_common import visualize
from clip_common.search.contact_sheet import cell
from clip_common.search.hits import Hit
from clip_common.system.output import save_figure
from clip_common.visualize import (
    draw_answer,
    draw_contact_sheet,
    draw_heat_map,
    draw_heat_maps,
    draw_similarities,
    strengths,
)

ANSWER = [{"label": "a dog", "score": 0.75}, {"label": "a cat", "score": 0.25}]
MODES = "1 L LA La P PA RGB RGBA RGBa CMYK YCbCr HSV LAB I F I;16".split()


@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_any_mode_is_drawn(mode, tmp_path):
    save_figure(draw_answer(Image.new(mode, (20, 30)), ANSWER, "x.png"), tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").size == (1000, 500)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 5000), (5000, 1), (3, 7)])
def test_an_image_of_any_size_is_drawn(size, tmp_path):
    save_figure(draw_answer(Image.new("RGB", size, "red"), ANSWER, "x.png"), tmp_path / "x.png")
    red = np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)
    assert (red[..., 0] - red[..., 1]).max() > 50


def test_a_16_bit_image_is_drawn_as_light_as_it_is(tmp_path):
    grey = np.full((40, 40), 128, "uint8")
    grey[0, 0] = 255
    drawn = []
    for name, values in (("narrow", grey), ("wide", grey.astype("uint16") * 257)):
        save_figure(draw_answer(Image.fromarray(values), ANSWER, "x"), tmp_path / f"{name}.png")
        drawn.append(np.asarray(Image.open(tmp_path / f"{name}.png")))
    assert np.array_equal(*drawn)


def test_names_that_are_not_utf_8_or_look_like_mathematics_are_drawn(tmp_path):
    odd = "caf\udce9 $x^ \\frac{ {} %s\n\t" + "很" * 90
    small = Image.new("RGBA", (9, 9))
    save_figure(draw_answer(small, [{"label": odd, "score": 1.0}], odd), tmp_path / "x.png")
    save_figure(draw_similarities(np.ones((1, 1)), [odd], [odd]), tmp_path / "y.png")
    save_figure(draw_contact_sheet([(None, odd), (small, odd)], odd), tmp_path / "z.png")
    assert all(Image.open(tmp_path / f"{name}.png").size for name in "xyz")


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("x" * 40, "x" * 40),
        ("x" * 41, "x" * 39 + "…"),
        ("很" * 20, "很" * 20),
        ("很" * 21, "很" * 19 + "…"),
        ("", ""),
    ],
)
def test_labels_are_cut_by_the_place_they_take(label, shown):
    """A Chinese character is twice as wide: forty of them would leave no room for the bars."""
    figure = draw_answer(Image.new("RGB", (9, 9)), [{"label": label, "score": 1.0}], "x.png")
    assert [tick.get_text() for tick in figure.axes[1].get_yticklabels()] == [shown]


def test_characters_without_a_font_are_one_warning_of_ours(monkeypatch, caplog, tmp_path):
    for fonts in ("_installed_fonts", "_fonts_installed_since"):
        monkeypatch.setattr(visualize, fonts, lambda: ("DejaVu Sans",))
    visualize._warn_of_fonts.cache_clear()
    chinese = [{"label": "一只狗", "score": 0.5}, {"label": "一只猫", "score": 0.5}]
    with warnings.catch_warnings(record=True) as theirs:
        warnings.filterwarnings("ignore", message="Glyph ")  # as `visualize` does when it is loaded
        for name in "xy":
            draw_answer(Image.new("RGB", (9, 9)), chinese, "图.png").savefig(tmp_path / f"{name}.png")
    assert theirs == []
    assert [record.message for record in caplog.records if "Noto Sans CJK" in record.message] != []
    assert len(caplog.records) == 1


def test_an_installed_chinese_font_is_used(monkeypatch):
    from matplotlib import font_manager

    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["DejaVu Sans", "Noto Sans CJK JP"])
    visualize._installed_fonts.cache_clear()
    try:
        assert visualize.text_style("狗")["family"] == ["DejaVu Sans", "Noto Sans CJK JP"]
    finally:
        visualize._installed_fonts.cache_clear()


def test_a_chinese_font_that_was_installed_after_matplotlib_listed_the_fonts_is_found(
    monkeypatch, caplog, tmp_path
):
    from matplotlib import font_manager

    ttlib = pytest.importorskip("fontTools.ttLib")  # matplotlib brings it
    manager = font_manager.fontManager
    font = ttlib.TTFont(font_manager.findfont("DejaVu Sans"))
    for number in (1, 16):  # the names of its family
        font["name"].setName("Noto Sans CJK SC", number, 3, 1, 0x409)
        font["name"].setName("Noto Sans CJK SC", number, 1, 0, 0)
    font.save(tmp_path / "new.ttf")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(manager, "ttflist", [old for old in manager.ttflist if "CJK" not in old.name])
    monkeypatch.setattr(visualize, "_CJK_FONTS", ["Noto Sans CJK SC"])
    found = [str(tmp_path / name) for name in ("broken.ttf", "new.ttf")]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: found)
    caches = (visualize._installed_fonts, visualize._fonts_installed_since)
    for cached in caches:
        cached.cache_clear()
    try:
        assert visualize.text_style("a dog")["family"] == ["DejaVu Sans"]
        assert visualize.text_style("狗")["family"] == ["DejaVu Sans", "Noto Sans CJK SC"]
        assert caplog.records == []
    finally:
        for cached in caches:
            cached.cache_clear()


@pytest.mark.parametrize(
    ("mode", "size"), [("I;16", (40, 30)), ("L", (1, 1)), ("LAB", (9, 9)), ("F", (1, 900))]
)
def test_a_hit_is_a_thumbnail_whatever_its_mode(mode, size, tmp_path):
    Image.new(mode, size).save(tmp_path / "x.tif")
    thumbnail, _ = cell(Hit(str(tmp_path / "x.tif"), 0.5, *size, ""))
    assert thumbnail.mode == "RGBA"
    assert max(thumbnail.size) <= 256


def test_a_hit_that_cannot_be_shown_is_an_empty_place(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    assert cell(Hit(str(tmp_path / "x.png"), 0.5, 1, 1, ""))[0] is None


def coloured(figure, panel: int) -> np.ndarray:
    """Where a panel of a figure is neither white nor grey, by its columns from 0 to 1."""
    figure.savefig(drawn := io.BytesIO(), dpi=100)
    pixels = np.asarray(Image.open(drawn).convert("RGB")).astype(int)
    box = figure.axes[panel].get_window_extent()
    middle = pixels[pixels.shape[0] // 2, round(box.x0) : round(box.x1)]
    return np.flatnonzero(middle[:, 0] - middle[:, 2] > 30) / len(middle)


@pytest.mark.parametrize(("squashed", "left", "right"), [(False, 1 / 3, 2 / 3), (True, 0, 1)])
def test_a_heat_map_lies_on_what_the_model_saw_of_the_image(squashed, left, right):
    figure = draw_heat_maps(
        Image.new("RGB", (300, 100)), {"a dog": np.ones((8, 8), "float32")}, "x", squashed
    )
    columns = coloured(figure, 1)
    assert columns.min() == pytest.approx(left, abs=0.02) and columns.max() == pytest.approx(right, abs=0.02)
    assert coloured(figure, 0).size == 0


def test_heat_maps_have_one_scale_and_show_only_what_speaks_for_a_label():
    heats = {f"{gain}": np.full((8, 8), gain, "float32") for gain in (4.0, 0.1, -4.0)}
    figure = draw_heat_maps(Image.new("RGB", (50, 50)), heats, "x")
    assert [coloured(figure, panel).size > 0 for panel in range(4)] == [False, True, False, False]


def test_a_faint_map_is_drawn_faint():
    figure = draw_heat_maps(Image.new("RGB", (50, 50)), {"a dog": np.full((8, 8), 0.02, "float32")}, "x")
    assert coloured(figure, 1).size == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 7)])
@pytest.mark.parametrize("mode", ["1", "RGBA", "I;16"])
def test_heat_maps_of_an_image_of_any_kind_are_drawn(mode, size, tmp_path):
    heats = {f"{name} $x^": np.ones((8, 8), "float32") for name in "abc"}
    save_figure(draw_heat_maps(Image.new(mode, size), heats, "x.png"), tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").size == (1600, 430)


@pytest.mark.parametrize("size", [(1, 1), (2, 200), (200, 2), (300, 100), (2000, 3000)])
def test_a_map_alone_has_the_shape_of_its_image(size):
    figure = draw_heat_map(Image.new("RGB", size), np.ones((8, 8), "float32"), "x")
    figure.canvas.draw()
    height, width = np.asarray(figure.canvas.buffer_rgba()).shape[:2]
    assert max(width, height) == 640
    assert width / height == pytest.approx(np.clip(size[0] / size[1], 1 / 64, 64), rel=0.02)


def test_all_maps_of_an_image_have_one_scale():
    first, second = strengths([np.array([[4.0, -1.0]]), np.array([[1.0, 2.0]])])
    assert first.tolist() == [[1, 0]] and second.tolist() == [[0.25, 0.5]]
