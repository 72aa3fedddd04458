"""Options shared by the verbs and `hub run`, and the types of their values."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..config import PRETRAINED, Pretrained, pretrained
from ..embedding.folders import folder_at, is_index
from ..engines.base import ENGINES, PRECISIONS
from ..errors import RequestError
from ..predictor import PredictorOptions
from ..system.addresses import is_address
from ..system.file_names import encodable, printable, user_path
from ..system.output import require_file, require_folder
from ..system.secrets import hide_secrets
from ..system.text_files import read_names
from ..text.prompts import TEMPLATE_SETS, split_labels
from ..zero_shot.scoring import SCORE_KINDS
from .parser import truth

Target = argparse.ArgumentParser | argparse._ArgumentGroup | argparse._MutuallyExclusiveGroup
"""A parser, or a group of it, to which options are added."""

# --- types ---------------------------------------------------------------------------------------------


def _number(kind: type, text: str, fits: Callable[[Any], bool], expected: str) -> Any:
    try:
        value = kind(text)
        usable = math.isfinite(value) and fits(value)
    except (ValueError, OverflowError):
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(f"is {text}, expected {expected}")
    return value


def count(text: str) -> int:
    """A positive integer."""
    return _number(int, text, lambda value: value >= 1, "a whole number from 1")


def whole(text: str) -> int:
    """A non-negative integer."""
    return _number(int, text, lambda value: value >= 0, "a whole number from 0")


def port(text: str) -> int:
    """A TCP port; 0 for any free one."""
    return _number(int, text, lambda value: 0 <= value <= 65535, "a port, 0 to 65535")


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _number(float, text, lambda value: 0 <= value <= 1, "0 to 1")


def cosine(text: str) -> float:
    """A number from -1 to 1."""
    return _number(float, text, lambda value: -1 <= value <= 1, "-1 to 1")


def part(text: str) -> float:
    """A number between 0 and 1, exclusive."""
    return _number(float, text, lambda value: 0 < value < 1, "more than 0 and less than 1")


def rate(text: str) -> float:
    """A number above 0."""
    return _number(float, text, lambda value: value > 0, "a number above 0")


def not_negative(text: str) -> float:
    """A number from 0."""
    return _number(float, text, lambda value: value >= 0, "a number from 0")


def place(text: str) -> str:
    """The name of a file or folder, not blank: an unset shell variable would mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("is blank")
    return text


def text(value: str) -> str:
    """A text that the locale can decode; otherwise it would silently become another text."""
    if encodable(value) != value:
        encoding = sys.getfilesystemencoding()
        raise argparse.ArgumentTypeError(
            f"{printable(value)} is not in the encoding of this locale, {encoding}: change LC_ALL, or save "
            "the calling script in this encoding"
        )
    return value


def thresholds(text: str) -> float | list[float] | str:
    """A number, several separated by commas, or a file. The range is checked later."""
    try:
        numbers = [float(part) for part in split_labels(text)]
    except ValueError:
        return text
    return numbers[0] if len(numbers) == 1 else numbers


def store_folder(text: str) -> Path | str:
    """A folder of embeddings, or its address in a bucket."""
    if not is_address(place(text)):
        return Path(text)
    try:
        folder_at(text)
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def output_store(text: str) -> Path | str:
    """A writable folder for embeddings, or an address in a bucket."""
    if is_index(text):
        raise argparse.ArgumentTypeError(
            f"{text} is an index: give the folder of embeddings that it was made from, and then update it "
            f"with `clip-hub index FOLDER --index {shlex.quote(text)}`"
        )
    return store_folder(text) if is_address(text) else output_folder(text)


def output_folder(text: str) -> Path:
    """A writable folder for results, checked now and not after hours of work."""
    return _writable(text, require_folder)


def output_file(text: str) -> Path:
    """A writable file for results."""
    return _writable(text, require_file)


def _writable(text: str, require: Callable[[Path], None]) -> Path:
    if is_address(text):
        raise argparse.ArgumentTypeError(
            f"is {hide_secrets(text)}: only `embed` writes to addresses; give a path on this machine"
        )
    try:
        require(Path(text))
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def record(name: str) -> Pretrained:
    """A module by its name."""
    try:
        return pretrained(name)
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# --- options -------------------------------------------------------------------------------------------


def add_flag(target: Target, name: str, help_text: str) -> None:
    """A flag. PaddleHub's form with a value, `--use_gpu True`, is accepted, too."""
    target.add_argument(
        name, type=truth, nargs="?", const=True, default=False, metavar="BOOL", help=help_text
    )


def add_stores(target: Target) -> None:
    """The folders of embeddings, one or several."""
    target.add_argument(
        "embeddings",
        nargs="+",
        type=store_folder,
        metavar="EMBEDDINGS",
        help="what `embed` wrote with one module: folders or s3://BUCKET/PREFIX; several are combined",
    )


def add_module(target: Target, help_text: str = "the model to use") -> None:
    """`--module`, read as its record."""
    target.add_argument(
        "--module",
        type=record,
        default=pretrained("clip_mini"),
        metavar="NAME",
        help=f"{help_text}: {', '.join(PRETRAINED)}; default: clip_mini",
    )


def add_weights(target: Target) -> None:
    """`--weights`."""
    target.add_argument(
        "--weights", help="a weights file, or the tag of published weights, in place of the module's own"
    )


def add_engine(target: Target) -> None:
    """`--engine` and `--precision`."""
    target.add_argument("--engine", choices=ENGINES, help="the engine for the CPU; default: auto")
    add_precision(target)


def add_precision(target: Target) -> None:
    """`--precision` only, for a verb with its own `--engine`."""
    target.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="bfloat16 or int8, if the CPU supports it; default: float32",
    )


def add_use_gpu(target: Target) -> None:
    """`--use_gpu`."""
    add_flag(target, "--use_gpu", "run on the GPU")


def add_batch_size(target: Target, default: int = 32) -> None:
    """`--batch_size`."""
    target.add_argument(
        "--batch_size", type=count, default=default, metavar="N", help=f"images at a time; default: {default}"
    )


def add_reading(target: Target) -> None:
    """`--exif_rotation` and `--fast_jpeg`: how images are read."""
    add_flag(target, "--exif_rotation", "rotate photos by their EXIF tag (OpenAI's code does not)")
    add_flag(target, "--fast_jpeg", "decode large JPEG photos at reduced size")


def add_model(target: Target) -> None:
    """All options for loading and running a model."""
    add_weights(target)
    add_engine(target)
    add_use_gpu(target)
    add_batch_size(target)
    add_reading(target)


def add_labels(target: Target, help_text: str) -> None:
    """`--labels` and `--labels_file`, read by `given_labels`."""
    target.add_argument(
        "--labels",
        type=text,
        action="append",
        help=f"{help_text}, separated by commas; repeatable",
    )
    target.add_argument(
        "--labels_file", action="append", help="a text file with one label per line; repeatable"
    )


def add_templates(target: Target) -> None:
    """`--templates`, repeatable."""
    target.add_argument(
        "--templates",
        type=text,
        action="append",
        help=f"a prompt with {{}} for the label; repeatable; or a set: {', '.join(TEMPLATE_SETS)}",
    )


def add_top_k(target: Target, default: int, help_text: str) -> None:
    """`--top_k`."""
    target.add_argument("--top_k", type=count, default=default, metavar="N", help=help_text)


def add_scores(target: Target) -> None:
    """`--scores` and `--thresholds`."""
    target.add_argument(
        "--scores",
        choices=SCORE_KINDS,
        help="softmax compares the labels; with cosine, several or none may be true; default: softmax, or "
        "the kind that the thresholds file is for",
    )
    target.add_argument(
        "--thresholds",
        type=thresholds,
        metavar="T",
        help="print only labels that reach this score: a number, one for each of --labels separated by "
        "commas, or a file that `clip-hub evaluate --thresholds` wrote",
    )


def add_format(target: Target) -> None:
    """`--format`."""
    target.add_argument(
        "--format", choices=("table", "json"), default="table", help="output format; default: table"
    )


def add_quiet(target: Target, default: Any = False) -> None:
    """`--quiet`."""
    target.add_argument(
        "--quiet", action="store_true", default=default, help="no progress bars, no warnings, no hints"
    )


def given_labels(args: argparse.Namespace) -> list[str] | None:
    """The labels of a command line; None if there are none.

    Raises:
        RequestError: both options are given, or a file cannot be read.
    """
    lines, files = args.labels, args.labels_file
    if lines is not None and files is not None:
        raise RequestError("give --labels or --labels_file, not both")
    if lines is not None:
        return [label for line in lines for label in split_labels(line)]
    if files is None:
        return None
    try:
        return [label for file in files for label in read_names(user_path(file), "labels")]
    except RequestError as error:
        raise RequestError(f"--labels_file {error}") from None


_LOADING = ("weights", "exif_rotation", "engine", "precision", "fast_jpeg")


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """The `PredictorOptions` that are set on the command line."""
    return {name: getattr(args, name) for name in _LOADING if getattr(args, name, None)}


def predictor_options(args: argparse.Namespace) -> PredictorOptions:
    """The options of a verb that makes its predictor itself."""
    return PredictorOptions(**given_options(args))


def choices_of(values: Sequence[str]) -> str:
    """Alternatives in argparse's notation."""
    return "{" + ",".join(values) + "}"
