"""`embed`, then `duplicates`, as commands: copies of an image are found, another image is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageOps

from tests.support.paths import EXAMPLES, ROOT


def clip_hub(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "clip_common", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_copies_of_an_image_are_found(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("dog", "bicycle", "tree"):
        shutil.copy(EXAMPLES / f"{name}.png", photos)
    shutil.copy(EXAMPLES / "dog.png", photos / "the_same.png")
    with Image.open(EXAMPLES / "dog.png") as image:
        ImageOps.mirror(image).save(photos / "mirrored.png")
    clip_hub("embed", str(photos), "--output", str(tmp_path / "vectors"))
    sheet = tmp_path / "sheet"
    command = ["duplicates", str(tmp_path / "vectors"), "--threshold", "0.9", "--output_dir", str(sheet)]
    printed = clip_hub(*command, "--format", "json")
    (group,) = json.loads(printed)["groups"]
    assert Path(group["keep"]["path"]).name == "dog.png"
    assert [(Path(one["path"]).name, one["exact"]) for one in group["duplicates"]] == [
        ("the_same.png", True),
        ("mirrored.png", False),
    ]
    assert (sheet / "duplicates.png").stat().st_size > 0
