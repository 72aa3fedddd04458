"""Read data sets: a folder per class, a table, or a well-known data set in its published files."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import RequestError
from ..inputs import NamedImage
from ..preprocessing.files import Seen, image_files
from ..system.file_names import escape_name, user_path
from ..system.log import logger
from ..system.reading import MOST_BYTES
from ..system.text_files import (
    TABLE_SUFFIXES,
    Table,
    columns,
    decode,
    lines_of,
    read_bytes,
    read_names,
    read_table,
)
from ..system.words import counted


@dataclass(frozen=True)
class Labelled:
    """Images, each of one class.

    Attributes:
        targets: indices into `classes`, int64 [n].
        published: the key of its published accuracies, if it is a well-known data set.
    """

    images: list[NamedImage]
    targets: np.ndarray
    classes: list[str]
    published: str | None = None

    @property
    def truth(self) -> np.ndarray:
        """The targets as one-hot rows, bool [n, classes]."""
        return self.targets[:, None] == np.arange(len(self.classes))


def read_labelled(
    source: str,
    classes: list[str] | None = None,
    may_rename: bool = False,
    table: Table | None = None,
) -> Labelled:
    """Read a data set.

    Args:
        source: a folder with a folder per class, a `.csv` or `.tsv` with the columns `path` and `label`, or
            `NAME:FOLDER` for a well-known data set whose files are in that folder.
        classes: all classes, in the order of the result; default: those of the data set, sorted unless it is
            a well-known one.
        may_rename: if `classes` has none of a well-known data set's names, but as many, use them as new names
            in its order, for example in another language.
        table: the table, if `table_of` has read it already.

    Raises:
        RequestError: the data set does not exist, or is invalid.
    """
    name, separator, folder = source.partition(":")
    if separator and name in READERS:
        data = READERS[name](user_path(folder))
        if may_rename and classes and not set(classes) & set(data.classes):
            return _renamed(data, source, classes)
        return _in_order(data, source, classes)
    path = user_path(source)
    if path.is_dir():
        pairs = _folders(path)
    elif table := table or table_of(source):
        files, labels = columns(table, ("path", "label"))
        pairs = [(path.parent / file, label) for file, label in zip(files, labels, strict=True)]
    else:
        known = ", ".join(f"{name}:FOLDER" for name in READERS)
        raise RequestError(
            f"{source}: expected a folder with a folder per class, a .csv or .tsv, or one of {known}"
        )
    if not pairs:
        raise RequestError(f"{source}: no images in it; expected CLASS/image.jpg")
    names = sorted({label for _, label in pairs})
    index = {label: i for i, label in enumerate(names)}
    targets = np.array([index[label] for _, label in pairs])
    return _in_order(Labelled([_named(file) for file, _ in pairs], targets, names), source, classes)


@dataclass(frozen=True)
class MultiLabelled:
    """Images, each with any number of labels.

    Attributes:
        truth: which images have which labels, bool [n, classes].
    """

    images: list[NamedImage]
    truth: np.ndarray
    classes: list[str]


def read_multi_labelled(
    source: str, classes: list[str] | None = None, table: Table | None = None
) -> MultiLabelled:
    """Read a table with the columns `path` and `labels`, which are separated by `|` and may be empty.

    Args:
        source: a `.csv` or `.tsv`.
        classes: all labels, in the order of the result; default: those that occur, sorted.
        table: the table, if `table_of` has read it already.

    Raises:
        RequestError: the table does not exist, or is invalid.
    """
    path = user_path(source)
    table = table or read_table(path)
    place = table.place(["labels"])
    if place is None:
        raise RequestError(f"{source}: no column 'labels', it has {', '.join(table.columns)}")
    first: dict[str, int] = {}
    (files,) = columns(table, ("path",))
    for file, line in zip(files, table.lines, strict=True):
        if file in first:
            raise RequestError(f"{source}, line {line}: {file} is also on line {first[file]}: put all its "
                               "labels into one row, with | between them")  # fmt: skip
        first[file] = line
    rows = [{label.strip() for label in row[place].split("|")} - {""} for row in table.rows]
    occurring = sorted(set().union(*rows))
    if not occurring:
        raise RequestError(f"{source}: no image has a label")
    names = occurring if classes is None else classes
    unknown = sorted(set(occurring) - set(names))
    if unknown:
        raise RequestError(f"{source}: has the label {unknown[0]!r}, which is not among the classes given")
    truth = np.array([[label in labels for label in names] for labels in rows])
    return MultiLabelled([_named(path.parent / file) for file in files], truth, list(names))


def table_of(source: str) -> Table | None:
    """Read the table of a data set, whose columns tell the kind of the data set; None if it is not a table.

    Raises:
        RequestError: the table cannot be read.
    """
    path = user_path(source)
    return read_table(path) if path.suffix.lower() in TABLE_SUFFIXES and path.is_file() else None


def _named(file: Path) -> NamedImage:
    return escape_name(str(file)), file


def _folders(path: Path) -> list[tuple[Path, str]]:
    """The images in the subfolders of a folder, each with the name of its subfolder as label."""
    pairs: list[tuple[Path, str]] = []
    seen = Seen()
    try:
        folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    except OSError as error:
        raise RequestError(f"{path}: cannot be listed ({error.strerror})") from None
    for folder in folders:
        files = list(image_files(str(folder), seen))
        if not files and not seen.unlisted:
            logger.warning("%s: no images in it, so it is no class", escape_name(str(folder)))
        label = escape_name(folder.name).replace("_", " ").strip()
        pairs += [(Path(file), label) for file in files]
    for unlisted, why in seen.unlisted.items():  # without these images, the results would be wrong
        raise RequestError(f"{escape_name(unlisted)}: cannot be listed ({why})")
    if seen.passed_over:
        logger.warning("%s: passed over: %s", path, seen.summary())
    return pairs


def _in_order(data: Labelled, source: str, classes: list[str] | None) -> Labelled:
    """Reorder the classes of a data set to `classes`, which may contain more."""
    if classes is None or classes == data.classes:
        return data
    unknown = sorted(set(data.classes) - set(classes))
    if unknown:
        raise RequestError(f"{source}: has the class {unknown[0]!r}, which is not among the classes given")
    place = {label: i for i, label in enumerate(classes)}
    if len(place) < len(classes):
        twice = next(label for i, label in enumerate(classes) if place[label] != i)
        raise RequestError(f"{source}: which images are of {twice!r}? Two of the classes are called that")
    targets = np.array([place[label] for label in data.classes])[data.targets]
    return Labelled(data.images, targets, list(classes), data.published)


def _renamed(data: Labelled, source: str, names: list[str]) -> Labelled:
    """Rename the classes of a data set; accuracies published for its own names do not apply any more."""
    if len(names) != len(data.classes):
        raise RequestError(
            f"{source}: has {counted(len(data.classes), 'class', 'classes')}, and given "
            f"{counted(len(names), 'name')}, none of them its own: give as many, in the order of its own"
        )
    return Labelled(data.images, data.targets, list(names))


def read_class_names(path: Path) -> list[str]:
    """Read names of classes, one per line.

    Raises:
        RequestError: the file cannot be read, is empty, or has a duplicate.
    """
    names = read_names(user_path(path), "classes")
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise RequestError(f"{path}: has the class {twice!r} twice")
    return names


def read_captioned(source: str, table: Table | None = None) -> list[tuple[Path, str]]:
    """Read images with captions from a table with the columns `path` and `caption`.

    Args:
        source: a `.csv` or `.tsv`. An image may occur several times, with different captions.
        table: the table, if `table_of` has read it already.

    Raises:
        RequestError: the table does not exist, or is invalid.
    """
    path = user_path(source)
    table = table or table_of(source)
    if table is None:
        raise RequestError(f"{source}: expected a .csv or .tsv with the columns path and caption")
    files, captions = columns(table, ("path", "caption"))
    if not files:
        raise RequestError(f"{source}: has no rows")
    return [(path.parent / file, caption) for file, caption in zip(files, captions, strict=True)]


# --- the usual data sets, from the files as their authors publish them ----------------------------------


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
            raise ValueError("its beginning is another")
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
    return Labelled([_named(file) for file in files], targets, classes, "Oxford Pets")


def _food(folder: Path) -> Labelled:
    """Food-101: `images/CLASS/NUMBER.jpg`, and the test images in `meta/test.txt`."""
    names = _lines(_needed(folder, "meta/test.txt"))
    classes = sorted({name.partition("/")[0] for name in names})
    files = [folder / "images" / f"{name}.jpg" for name in names]
    targets = np.array([classes.index(name.partition("/")[0]) for name in names])
    return Labelled(
        [_named(file) for file in files], targets, [c.replace("_", " ") for c in classes], "Food-101"
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
    return Labelled([_named(file) for _, file in files], targets, classes, "ImageNet")


def _in_memory(
    pixels: np.ndarray, targets: np.ndarray, classes: list[str], published: str | None
) -> Labelled:
    if len(pixels) != len(targets) or (len(targets) and targets.max() >= len(classes)):
        raise RequestError(
            f"{published or 'the data set'}: {counted(len(pixels), 'image')}, "
            f"{counted(len(targets), 'label')} and {counted(len(classes), 'class', 'classes')} do not go "
            "together: is a file damaged, or of another set?"
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
