"""`embed`, then `duplicates`, as commands: copies of an image are found, another image is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

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
        small = image.convert("RGB").resize((image.width // 2, image.height // 2))
        small.save(photos / "small.jpg", quality=70)
    clip_hub("embed", str(photos), "--output", str(tmp_path / "vectors"))
    sheet = tmp_path / "sheet"
    command = ["duplicates", str(tmp_path / "vectors"), "--output_dir", str(sheet)]
    printed = clip_hub(*command, "--format", "json")
    (group,) = json.loads(printed)["groups"]
    assert group["keep"]["path"] == "dog.png"
    assert [(one["path"], one["exact"]) for one in group["duplicates"]] == [
        ("the_same.png", True),
        ("small.jpg", False),
    ]
    assert (sheet / "duplicates.png").stat().st_size > 0
