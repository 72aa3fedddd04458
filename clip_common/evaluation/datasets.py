"""Images with their classes: a folder per class, a table, or a usual data set from the user's files."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import RequestError
from ..inputs import NamedImage
from ..preprocessing.image import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Labelled:
    """Images, each of one class.

    Attributes:
        targets: int64 [n], indices into `classes`.
        published: the key of its published figures, if it is a usual data set.
    """

    images: list[NamedImage]
    targets: np.ndarray
    classes: list[str]
    published: str | None = None


def read_labelled(source: str, classes: list[str] | None = None) -> Labelled:
    """Read a data set.

    Args:
        source: a folder with a folder per class, a `.csv` with the columns `path` and `label`, or
            `NAME:FOLDER` for a usual data set whose files are in that folder.
        classes: their order, for a folder or a table; left out, that of the alphabet.

    Raises:
        RequestError: it is not there, or not as it must be.
    """
    name, separator, folder = source.partition(":")
    if separator and name in READERS:
        return READERS[name](Path(folder))
    path = Path(source)
    if path.is_dir():
        pairs = [
            (file, folder.name.replace("_", " "))
            for folder in sorted(path.iterdir())
            if folder.is_dir()
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES
        ]
    elif path.suffix == ".csv" and path.is_file():
        pairs = [(path.parent / row["path"], row["label"]) for row in _rows(path, "path", "label")]
    else:
        known = ", ".join(f"{name}:FOLDER" for name in READERS)
        raise RequestError(f"{source}: expected a folder with a folder per class, a .csv, or one of {known}")
    if not pairs:
        raise RequestError(f"{source}: no images in it; expected CLASS/image.jpg")
    names = classes or sorted({label for _, label in pairs})
    unknown = sorted({label for _, label in pairs} - set(names))
    if unknown:
        raise RequestError(f"{source}: has the class {unknown[0]!r}, which is not among the classes given")
    index = {label: i for i, label in enumerate(names)}
    targets = np.array([index[label] for _, label in pairs])
    return Labelled([(str(file), file) for file, _ in pairs], targets, list(names))


def read_captioned(source: str) -> list[tuple[Path, str]]:
    """Images with captions from a `.csv` with the columns `path` and `caption`; an image may have several.

    Raises:
        RequestError: it is not there, or not as it must be.
    """
    path = Path(source)
    if path.suffix != ".csv" or not path.is_file():
        raise RequestError(f"{source}: expected a .csv with the columns path and caption")
    return [(path.parent / row["path"], row["caption"]) for row in _rows(path, "path", "caption")]


def _rows(path: Path, *columns: str) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise RequestError(
                f"{path}: no column {missing[0]!r}, it has {', '.join(reader.fieldnames or ())}"
            )
        rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if any(not row[column] for column in columns):
            raise RequestError(f"{path}, line {number}: {' and '.join(columns)} must not be empty")
    return rows


# --- the usual data sets, from the files as their authors publish them ----------------------------------


def _cifar(folder: Path, files: list[str], names: str, label_bytes: int, published: str) -> Labelled:
    """CIFAR's binary version: a record is its labels, the last of which counts, and 3 x 32 x 32 bytes."""
    paths = [_needed(folder, file) for file in files]
    record = label_bytes + 3 * 32 * 32
    records = np.concatenate([np.frombuffer(path.read_bytes(), np.uint8) for path in paths])
    if len(records) % record:
        raise RequestError(f"{folder}: {files[0]} is not CIFAR's binary version")
    rows = records.reshape(-1, record)  # n record
    pixels = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # n 3 h w -> n h w 3
    classes = [line.replace("_", " ") for line in _needed(folder, names).read_text().split()]
    return _in_memory(pixels, rows[:, label_bytes - 1], classes, published)


def _cifar10(folder: Path) -> Labelled:
    return _cifar(folder, ["test_batch.bin"], "batches.meta.txt", 1, "CIFAR-10")


def _cifar10_train(folder: Path) -> Labelled:
    files = [f"data_batch_{number}.bin" for number in range(1, 6)]
    return _cifar(folder, files, "batches.meta.txt", 1, "CIFAR-10")


def _cifar100(folder: Path) -> Labelled:
    return _cifar(folder, ["test.bin"], "fine_label_names.txt", 2, "CIFAR-100")


def _cifar100_train(folder: Path) -> Labelled:
    return _cifar(folder, ["train.bin"], "fine_label_names.txt", 2, "CIFAR-100")


_FASHION = "T-shirt,trousers,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot".split(",")


def _idx(path: Path) -> np.ndarray:
    """An array in MNIST's format: two zero bytes, the type (8 is uint8), the rank, the sizes, the values."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if content[:3] != b"\0\0\x08":
        raise RequestError(f"{path}: not a file in MNIST's format")
    rank = content[3]
    sizes = np.frombuffer(content, ">u4", rank, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(sizes.tolist())


def _fashion(folder: Path, part: str) -> Labelled:
    images, labels = (
        _idx(_needed(folder, f"{part}-{kind}.gz", f"{part}-{kind}"))
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    pixels = 255 - np.repeat(images[..., None], 3, axis=-1)  # clothes are light on black: make it print
    return _in_memory(pixels, labels, _FASHION, None)


def _pets(folder: Path) -> Labelled:
    """Oxford-IIIT Pets: `images/Breed_Name_123.jpg`, and the test half's names in `annotations/test.txt`."""
    lines = _needed(folder, "annotations/test.txt").read_text().splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    breeds = [name.rpartition("_")[0].replace("_", " ").lower() for name in names]
    classes = sorted(set(breeds))
    files = [folder / "images" / f"{name}.jpg" for name in names]
    targets = np.array([classes.index(breed) for breed in breeds])
    return Labelled([(str(file), file) for file in files], targets, classes, "Oxford Pets")


def _food(folder: Path) -> Labelled:
    """Food-101: `images/CLASS/NUMBER.jpg`, and the test images in `meta/test.txt`."""
    names = _needed(folder, "meta/test.txt").read_text().split()
    classes = sorted({name.partition("/")[0] for name in names})
    files = [folder / "images" / f"{name}.jpg" for name in names]
    targets = np.array([classes.index(name.partition("/")[0]) for name in names])
    return Labelled(
        [(str(file), file) for file in files], targets, [c.replace("_", " ") for c in classes], "Food-101"
    )


def _imagenet(folder: Path) -> Labelled:
    """ImageNet's validation images in a folder per synset; its classes are numbered in their order."""
    from ..text.prompts import LABEL_SETS, read_lines

    classes = list(read_lines(LABEL_SETS["imagenet"]))
    synsets = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(synsets) != len(classes):
        raise RequestError(
            f"{folder}: expected {len(classes)} folders n01440764 and so on, found {len(synsets)}"
        )
    files = [(i, file) for i, synset in enumerate(synsets) for file in sorted(synset.iterdir())]
    targets = np.array([i for i, _ in files])
    return Labelled([(str(file), file) for _, file in files], targets, classes, "ImageNet")


def _in_memory(
    pixels: np.ndarray, targets: np.ndarray, classes: list[str], published: str | None
) -> Labelled:
    images: list[NamedImage] = [(f"image {i}", Image.fromarray(array)) for i, array in enumerate(pixels)]
    return Labelled(images, targets.astype(np.int64), classes, published)


def _needed(folder: Path, *names: str) -> Path:
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise RequestError(f"{folder} has no {names[0]}: put the data set's own files there")
    return found


READERS: dict[str, Callable[[Path], Labelled]] = {
    "cifar10": _cifar10,
    "cifar10-train": _cifar10_train,
    "cifar100": _cifar100,
    "cifar100-train": _cifar100_train,
    "fashion-mnist": lambda folder: _fashion(folder, "t10k"),
    "fashion-mnist-train": lambda folder: _fashion(folder, "train"),
    "oxford-pets": _pets,
    "food101": _food,
    "imagenet": _imagenet,
}
