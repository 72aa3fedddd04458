"""Which files of a folder are images, and that nothing is left out without a word."""

from __future__ import annotations

import glob
import io
import os
from pathlib import Path

import pytest
from PIL import Image

from clip_common.errors import RequestError
from clip_common.preprocessing.files import Seen, image_files, is_image, matches_of
from clip_common.preprocessing.image import FORMATS, IMAGE_SUFFIXES, readable_formats
from tests.support.locked import lock_folder


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, form)
    return file.getvalue()


def test_every_suffix_that_pillow_knows_for_our_formats() -> None:
    readable_formats()
    known = {suffix for suffix, form in Image.registered_extensions().items() if form in FORMATS}
    assert known <= IMAGE_SUFFIXES


@pytest.mark.parametrize("form", "PNG JPEG GIF BMP WEBP TIFF PPM ICO JPEG2000 AVIF".split())
def test_an_image_without_a_suffix(form: str) -> None:
    if form not in readable_formats():
        pytest.skip(f"this Pillow has no {form}")
    beginning = encoded(form)[:32]
    for name in ("photo", "wget.jpg?size=large", "scan.001", "d41d8cd98f00b204", "a.png (1)"):
        assert is_image(name, beginning)
        assert not is_image(name, b"BMW and other words, 32 bytes of")
    assert not is_image("photo.cr2", beginning) and not is_image("photo.txt", beginning)


def test_a_messy_folder(tmp_path: Path) -> None:
    folder, album = tmp_path / "photos", tmp_path / "album"
    for place in (folder / "sub" / "deep", folder / "dir.png", album):
        place.mkdir(parents=True)
    png = encoded("PNG")
    found = [
        "-dash.png",
        "dangling.png",
        "new\nline.png",
        "noextension",
        "photo[1].PNG",
        "stereo.MPO",
        "w.jpg?x",
    ]
    for name in found:
        if name != "dangling.png":
            (folder / name).write_bytes(png)
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "sub" / "deep" / "g.png").write_bytes(png)
    (folder / "dir.png" / "b.ppm").write_bytes(png)
    (album / "u.jp2").write_bytes(png)
    (folder / "a_link").symlink_to("../album")
    (folder / "sub" / "loop").symlink_to("..")
    (folder / "sub" / "self").symlink_to("self")
    for name in ("IMG_1.CR2", "IMG_2.cr2", "Thumbs.db", "._stereo.MPO", "README"):
        (folder / name).write_bytes(b"no image here")
    os.mkfifo(folder / "pipe.png")
    seen = Seen()
    images = [os.path.relpath(file, folder) for file in image_files(str(folder), seen)]
    assert images == [*found, "dir.png/b.ppm", "sub/deep/g.png", "a_link/u.jp2"]
    assert seen.summary() == ("2 .cr2, 2 without a usual suffix, 1 ._* (macOS), 1 .db, 1 pipe or device")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    lock_folder(monkeypatch, "locked")
    seen = Seen()
    assert list(image_files(str(tmp_path), seen)) == [str(tmp_path / "a.png")]
    assert seen.unlisted == {str(tmp_path / "locked"): "Permission denied"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "b.png").touch()
    for pattern, matches in (
        ("locked/*.png", []),
        ("*/*.png", ["b/b.png"]),
        ("**/*.png", ["a.png", "b/b.png"]),
    ):
        seen = Seen()
        assert matches_of(f"{tmp_path}/{pattern}", seen) == [str(tmp_path / match) for match in matches]
        assert seen.unlisted == {str(tmp_path / "locked"): "Permission denied"}


def test_a_glob_matches_what_that_of_python_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "a.png",
        "[b].png",
        ".h.png",
        "d/a.png",
        "d/e/f/a.png",
        "d/.g/a.png",
        ".i/a.png",
        "p q/a.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    Path("d/dangling.png").symlink_to("nowhere")
    patterns = "*.png * d/* d/ */ */*.png d/**/*.png **/*.png **/a.png **/d/**/a.* d/** ** .*/*.png ?/a.png"
    for pattern in (
        *patterns.split(),
        "p q/*",
        "./*.png",
        "d/dangling.*",
        f"{tmp_path}/*.png",
        f"{tmp_path}/**",
    ):
        all_matches = {Path(match) for match in glob.glob(pattern, recursive=True)}
        expected = {match for match in all_matches if all_matches.isdisjoint(match.parents)}
        seen = Seen()
        assert {Path(match) for match in matches_of(pattern, seen)} == expected, pattern
        assert not seen.unlisted
    for pattern in ("nowhere", "*.jpg", "nowhere/*", "a.png/*", "x" * 300 + "/*", "a\0b", "**/z.png"):
        with pytest.raises(RequestError, match="no such file or folder, and no match as a glob"):
            matches_of(pattern, Seen())


def test_links_that_lead_in_circles_do_not_multiply_what_a_glob_matches(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.png").touch()
    for name in ("e", "f", "d/up", "d/up_too"):
        (tmp_path / name).symlink_to(tmp_path if "/" in name else "d")
    assert matches_of(f"{tmp_path}/**/*.png", Seen()) == [str(tmp_path / "d" / "a.png")]
