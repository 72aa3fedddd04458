"""Well-known data sets, read from their files as published by their authors."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import RequestError
from ..inputs import NamedImage
from ..system.reading import MOST_BYTES
from ..system.text_files import decode, lines_of, read_bytes
from ..system.words import counted
from .labelled import Labelled, named_file


def _cifar(folder: Path, files: list[str], names: str, label_bytes: int, published: str) -> Labelled:
    """CIFAR's binary version: a record is its labels, the last of which counts, and 3 x 32 x 32 bytes."""
    paths = [_needed(folder, file) for file in files]
    record = label_bytes + 3 * 32 * 32
    records = np.concatenate([np.frombuffer(_content(path), np.uint8) for path in paths])
    if len(records) % record:
        raise RequestError(f"{folder}: {files[0]} is not CIFAR's binary version")
    rows = records.reshape(-1, record)  # n record
    pixels = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # n 3 h w -> n h w 3
    classes = [line.replace("_", " ") for line in _lines(_needed(folder, names))]
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


_MOST_UNPACKED = 256 << 20  # bytes, of a file of MNIST's; the largest has 47 million
_FASHION = "T-shirt,trousers,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot".split(",")


def _idx(path: Path) -> np.ndarray:
    """An array in MNIST's format: two zero bytes, the type (8 is uint8), the rank, the sizes, the values."""
    content = _content(path)
    try:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                content = file.read(_MOST_UNPACKED)
        if content[:3] != b"\0\0\x08":
            raise ValueError("its first bytes are wrong")
        rank = content[3]
        sizes = np.frombuffer(content, ">u4", rank, 4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(sizes.tolist())
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise RequestError(f"{path}: not a file in MNIST's format, or damaged ({error})") from None


def _fashion(folder: Path, part: str) -> Labelled:
    images, labels = (
        _idx(_needed(folder, f"{part}-{kind}.gz", f"{part}-{kind}"))
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    pixels = 255 - np.repeat(images[..., None], 3, axis=-1)  # clothes are light on black: make it print
    return _in_memory(pixels, labels, _FASHION, None)


def _pets(folder: Path) -> Labelled:
    """Oxford-IIIT Pets: `images/Breed_Name_123.jpg`, and the test half's names in `annotations/test.txt`."""
    names = [line.split()[0] for line in _lines(_needed(folder, "annotations/test.txt"))]
    breeds = [name.rpartition("_")[0].replace("_", " ").lower() for name in names]
    classes = sorted(set(breeds))
    files = [folder / "images" / f"{name}.jpg" for name in names]
    targets = np.array([classes.index(breed) for breed in breeds])
    return Labelled([named_file(file) for file in files], targets, classes, "Oxford Pets")


def _food(folder: Path) -> Labelled:
    """Food-101: `images/CLASS/NUMBER.jpg`, and the test images in `meta/test.txt`."""
    names = _lines(_needed(folder, "meta/test.txt"))
    classes = sorted({name.partition("/")[0] for name in names})
    files = [folder / "images" / f"{name}.jpg" for name in names]
    targets = np.array([classes.index(name.partition("/")[0]) for name in names])
    return Labelled(
        [named_file(file) for file in files], targets, [c.replace("_", " ") for c in classes], "Food-101"
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
    return Labelled([named_file(file) for _, file in files], targets, classes, "ImageNet")


def _in_memory(
    pixels: np.ndarray, targets: np.ndarray, classes: list[str], published: str | None
) -> Labelled:
    if len(pixels) != len(targets) or (len(targets) and targets.max() >= len(classes)):
        raise RequestError(
            f"{published or 'the data set'}: {counted(len(pixels), 'image')}, "
            f"{counted(len(targets), 'label')} and {counted(len(classes), 'class', 'classes')} do not "
            "match: is a file damaged, or of another data set?"
        )
    images: list[NamedImage] = [(f"image {i}", Image.fromarray(array)) for i, array in enumerate(pixels)]
    return Labelled(images, targets.astype(np.int64), classes, published)


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in lines_of(decode(read_bytes(path), str(path))) if line.strip()]


def _content(path: Path) -> bytes:
    return read_bytes(path, MOST_BYTES)


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
"""Functions that read a data set from its folder, by the name that users give before the folder."""
