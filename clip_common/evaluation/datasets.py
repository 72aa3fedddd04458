"""Read data sets: a folder per class, a table, or a well-known data set (`known_datasets.py`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import RequestError
from ..preprocessing.files import Seen, image_files
from ..system.file_names import escape_name, user_path
from ..system.log import logger
from ..system.text_files import TABLE_SUFFIXES, Table, columns, read_names, read_table
from ..system.words import counted
from .known_datasets import READERS
from .labelled import Labelled, MultiLabelled, named_file


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
    return _in_order(Labelled([named_file(file) for file, _ in pairs], targets, names), source, classes)


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
    return MultiLabelled([named_file(path.parent / file) for file in files], truth, list(names))


def table_of(source: str) -> Table | None:
    """Read the table of a data set, whose columns tell the kind of the data set; None if it is not a table.

    Raises:
        RequestError: the table cannot be read.
    """
    path = user_path(source)
    return read_table(path) if path.suffix.lower() in TABLE_SUFFIXES and path.is_file() else None


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
            logger.warning("%s: no images in it: not used as a class", escape_name(str(folder)))
        label = escape_name(folder.name).replace("_", " ").strip()
        pairs += [(Path(file), label) for file in files]
    for unlisted, why in seen.unlisted.items():  # without these images, the results would be wrong
        raise RequestError(f"{escape_name(unlisted)}: cannot be listed ({why})")
    if seen.passed_over:
        logger.warning("%s: skipped: %s", path, seen.summary())
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
        raise RequestError(f"{source}: two of the given classes are called {twice!r}: give each its own name")
    targets = np.array([place[label] for label in data.classes])[data.targets]
    return Labelled(data.images, targets, list(classes), data.published)


def _renamed(data: Labelled, source: str, names: list[str]) -> Labelled:
    """Rename the classes of a data set; accuracies published for its own names do not apply any more."""
    if len(names) != len(data.classes):
        raise RequestError(
            f"{source}: has {counted(len(data.classes), 'class', 'classes')}, but "
            f"{counted(len(names), 'other name')} given: give one for each class, in their order"
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
