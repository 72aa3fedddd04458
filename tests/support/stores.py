"""Folders of images, and stores of embeddings."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clip_common.config import pretrained
from clip_common.embedding.embed import Report, embed
from clip_common.embedding.items import Item
from clip_common.embedding.origin import Origin
from clip_common.embedding.parts import Job
from clip_common.embedding.sources import items_of
from clip_common.embedding.store import Row, Store, vectors_of
from clip_common.zero_shot.scoring import l2_normalize

JOB = Job(pretrained("clip_mini"), part_size=7, batch_size=4)
ORIGIN = Origin("clip_mini", "0" * 64, 64)
"""The origin of random embeddings."""


def random_rows(count: int, seed: int = 0) -> list[Row]:
    """Random embeddings of images that do not exist, half of them in a folder with an odd name."""
    vectors = l2_normalize(np.random.default_rng(seed).normal(size=(count, 64)).astype(np.float32))
    return [
        Row(Item(f"/photos/{'cats' if i % 2 else 'dogs_%'}/{i}.jpg", f"stamp-{i}"), vector, 100 + i, 50 + i)
        for i, vector in enumerate(vectors)
    ]


def random_store(folder: Path, count: int = 1200, origin: Origin = ORIGIN) -> Store:
    """A store of `random_rows`, in four parts."""
    store, rows = Store(folder), random_rows(count)
    for number in range(4):
        store.write_part(number, rows[number * count // 4 : (number + 1) * count // 4], origin)
    return store


def write_images(folder: Path) -> Path:
    """Write twenty images of mixed formats and sizes in folders, a broken image, and a text file."""
    rng = np.random.default_rng(0)
    for number in range(20):
        path = folder / f"{number % 3}" / f"{number:02d}.{('png', 'jpg', 'webp')[number % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = rng.integers(0, 256, (5, 5, 3), np.uint8)
        Image.fromarray(blocks).resize((40 + number, 90 - number)).save(path)
    (folder / "1" / "broken.png").write_bytes(b"no image")
    (folder / "notes.md").write_text("no image either")
    return folder


def png(colour: Any = "red") -> bytes:
    """A small image file."""
    file = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(file, "PNG")
    return file.getvalue()


def tar_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar file, from names and contents."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as shard:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return file.getvalue()


def run(source: Any, output: Path | str, **options: Any) -> Report:
    sources = [str(source)] if isinstance(source, (str, Path)) else [str(item) for item in source]
    return embed(items_of(sources), output, options.pop("job", JOB), **options)


def contents(output: Path | str) -> dict[str, np.ndarray]:
    """The embeddings in a store by path; a path must not occur twice."""
    found: dict[str, np.ndarray] = {}
    for table in Store(output).tables():
        for path, vector in zip(table["path"].to_pylist(), vectors_of(table), strict=True):
            assert path not in found, f"{path} is there twice"
            found[path] = vector
    return found
