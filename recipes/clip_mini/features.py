"""Computes pooled features of drawings and crops of photographs, once: the image tower is not trained.

`python -m recipes.clip_mini.features --data DATA` adds `features.npz` to a folder written by `data.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from clip_common.config import MINI, PRETRAINED
from clip_common.errors import ClipError, TrainingError
from clip_common.preprocessing.image import Preprocess, normalize
from clip_common.system.output import atomic_file
from clip_common.system.reading import open_npz

from .data import DEFAULT_CACHE, Caption, Dataset, to_image
from .packages import PHOTOGRAPHS, WALLPAPERS, unpacked
from .tower import compiled_pool, read_tower

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
CROPS = 120  # per photograph
SMALLEST_CROP = 0.3  # share of the shorter side
NOISE = 0.1
AT_ONCE = 16
_FILE = "features.npz"
Pool = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Features:
    """Pooled features of a data set.

    Attributes:
        captions: captions of the drawings.
        drawings: float16 [N, features], in the order of the captions.
        photographs: float16 [K, features], of crops of photographs.
    """

    captions: Sequence[Caption]
    drawings: np.ndarray
    photographs: np.ndarray

    @classmethod
    def open(cls, data: Path) -> Features:
        """Open the features of a prepared folder.

        Raises:
            TrainingError: the features are missing or damaged.
        """
        captions = Dataset.open(data).captions
        path = data / _FILE
        if not path.is_file():
            raise TrainingError(f"{data} has no {_FILE}: make it with `python -m recipes.clip_mini.features`")
        try:
            with open_npz(path) as file:
                features = cls(captions, file["drawings"], file["photographs"])
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(f"{path} is damaged, remove it and make it again: {error}") from error
        if len(features.drawings) != len(captions):
            raise TrainingError(f"{path} is of {len(features.drawings)} drawings, not of {len(captions)}")
        return features

    def draw_drawings(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Features of drawings, float32 [n, features], with noise in place of image augmentation."""
        noise = rng.normal(1, NOISE, (len(rows), self.drawings.shape[1])).astype(np.float32)
        return self.drawings[rows].astype(np.float32) * noise

    def draw_photographs(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Features of `count` random crops, float32 [count, features]."""
        return self.photographs[rng.integers(len(self.photographs), size=count)].astype(np.float32)


def of_drawings(data: Dataset, pool: Pool) -> np.ndarray:
    """Features of all drawings with the module's preprocessing, float16 [N, features]."""
    preprocess = Preprocess(MINI.image_resolution, PRETRAINED["clip_mini"].preprocessing)
    parts = [
        pool(np.stack([preprocess(to_image(image)) for image in data.images[start : start + AT_ONCE]]))
        for start in tqdm(range(0, len(data.images), AT_ONCE), desc="drawings", mininterval=5)
    ]
    return np.concatenate(parts).astype(np.float16)


def of_photographs(paths: Sequence[Path], pool: Pool) -> np.ndarray:
    """Features of random crops of photographs, half of them mirrored, float16 [K, features]."""
    parts = [
        pool(np.stack([_crop(path, np.random.default_rng([number, place])) for place in range(CROPS)]))
        for number, path in enumerate(tqdm(paths, desc="photographs", mininterval=5))
    ]
    return np.concatenate(parts).astype(np.float16)


def _crop(path: Path, rng: np.random.Generator) -> np.ndarray:
    with Image.open(path) as image:
        whole = image.convert("RGB")
    side = min(whole.size) * rng.uniform(SMALLEST_CROP, 1)
    left, top = rng.uniform(0, whole.width - side), rng.uniform(0, whole.height - side)
    size = (MINI.image_resolution, MINI.image_resolution)
    crop = np.asarray(whole.resize(size, Image.Resampling.BICUBIC, (left, top, left + side, top + side)))
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return normalize(crop, PRETRAINED["clip_mini"].preprocessing)


def photographs(downloads: Path) -> list[Path]:
    """Paths of photographs, from `examples/` and a package of wallpapers. They have no labels: training uses
    the classifier's own probabilities."""
    wallpapers = unpacked(WALLPAPERS, downloads)
    return sorted(EXAMPLES.glob("*.jpg")) + [wallpapers / name for name in PHOTOGRAPHS]


def make(data: Path, downloads: Path) -> None:
    """Compute and write the features of a prepared folder.

    Raises:
        TrainingError: the data cannot be read, or the file cannot be written.
    """
    pool = compiled_pool(read_tower(downloads)[0])
    arrays = {
        "photographs": of_photographs(photographs(downloads), pool),
        "drawings": of_drawings(Dataset.open(data), pool),
    }
    try:
        with atomic_file(data / _FILE) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise TrainingError(f"cannot write {data / _FILE}: {error.strerror or error}") from error


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.clip_mini.features", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_CACHE / "data")
    parser.add_argument("--downloads", type=Path, default=DEFAULT_CACHE / "downloads")
    arguments = parser.parse_args()
    try:
        make(arguments.data, arguments.downloads)
    except (TrainingError, ClipError) as error:
        raise SystemExit(f"recipes.clip_mini.features: {error}") from None


if __name__ == "__main__":
    main()
