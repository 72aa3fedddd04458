"""Folders of images, and what `embed` writes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clip_common.config import pretrained
from clip_common.embedding.embed import Job, Report, embed
from clip_common.embedding.sources import items_of
from clip_common.embedding.store import Store, vectors_of

JOB = Job(pretrained("clip_mini"), part_size=7, batch_size=4)


def write_images(folder: Path) -> Path:
    """Twenty images of mixed formats and sizes in folders, and one that is none."""
    rng = np.random.default_rng(0)
    for number in range(20):
        path = folder / f"{number % 3}" / f"{number:02d}.{('png', 'jpg', 'webp')[number % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = rng.integers(0, 256, (5, 5, 3), np.uint8)
        Image.fromarray(blocks).resize((40 + number, 90 - number)).save(path)
    (folder / "1" / "broken.png").write_bytes(b"no image")
    (folder / "notes.md").write_text("no image either")
    return folder


def run(source: Any, output: Path, **options: Any) -> Report:
    sources = [str(source)] if isinstance(source, (str, Path)) else [str(item) for item in source]
    return embed(items_of(sources), output, options.pop("job", JOB), **options)


def contents(output: Path) -> dict[str, np.ndarray]:
    """Vectors by path; a path that is there twice is an error."""
    found: dict[str, np.ndarray] = {}
    for table in Store(output).tables():
        for path, vector in zip(table["path"].to_pylist(), vectors_of(table), strict=True):
            assert path not in found, f"{path} is there twice"
            found[path] = vector
    return found
