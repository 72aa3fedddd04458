"""`hub run <module>`: arguments, the work, what is printed, and the exit status."""

from __future__ import annotations

import argparse
import glob
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from tqdm import tqdm

from ..engines.base import ENGINES, PRECISIONS
from ..errors import ClipError, ImageError, RequestError
from ..inputs import check_texts
from ..predictor import Predictor
from ..preprocessing.image import IMAGE_SUFFIXES, open_image
from ..text.prompts import TEMPLATE_SETS
from ..zero_shot.scoring import Answer, l2_normalize

PredictorMaker = Callable[..., Predictor]
_LOADING = ("weights", "exif_rotation", "fast_jpeg", "engine", "precision")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(f"{self.prog}: {message} (see {self.prog} --help)")


def parser(name: str) -> argparse.ArgumentParser:
    """The command line of a module, in PaddleHub's two groups."""
    made = _Parser(prog=f"hub run {name}", description=f"Run the module {name}.")
    inputs = made.add_argument_group("Input options", "Data fed into the module.")
    inputs.add_argument("--input_path", help="an image, a folder of images, or a glob in quotes")
    inputs.add_argument("--input_text", action="append", help="a text to embed; repeatable")
    inputs.add_argument("--labels", help="labels to choose from, separated by commas")
    inputs.add_argument("--labels_file", help="a text file with one label per line")
    config = made.add_argument_group("Config options", "Run configuration, optional.")
    config.add_argument("--task", choices=("classify", "embed"), help="default: classify, or embed for texts")
    config.add_argument(
        "--templates",
        action="append",
        help=f"a prompt with {{}} for the label; repeatable; or a set: {', '.join(TEMPLATE_SETS)}",
    )
    config.add_argument("--top_k", type=int, default=5, help="labels to print per image")
    config.add_argument("--format", choices=("table", "json"), default="table")
    config.add_argument("--visualization", type=_flag, nargs="?", const=True, default=False, metavar="BOOL",
                        help="save each image with its scores as bars")  # fmt: skip
    config.add_argument("--output_dir", default="clip_output", help="where --visualization saves")
    config.add_argument("--use_gpu", type=_flag, nargs="?", const=True, default=False, metavar="BOOL")
    config.add_argument("--engine", choices=ENGINES, help="what runs the model on the CPU; default: auto")
    config.add_argument(
        "--precision", choices=PRECISIONS, help="bfloat16 where the CPU has it; default: float32"
    )
    config.add_argument("--batch_size", type=int, default=32)
    config.add_argument("--weights", help="a weights file in place of the module's own")
    config.add_argument("--exif_rotation", type=_flag, nargs="?", const=True, default=False, metavar="BOOL",
                        help="turn photos as their EXIF tag says (OpenAI's code does not)")  # fmt: skip
    config.add_argument("--fast_jpeg", type=_flag, nargs="?", const=True, default=False, metavar="BOOL",
                        help="decode large JPEG photos at a fraction of their size")  # fmt: skip
    return made


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"{text!r} is not True or False")
    return text.lower() in ("true", "1")


def run(name: str, predictor_with: PredictorMaker, argv: list[str]) -> str:
    """Do what a command line asks for.

    Args:
        name: the module's, for messages.
        predictor_with: gives the predictor for those of `--weights`, `--exif_rotation`, `--fast_jpeg`,
            `--engine` and `--precision` that are given.
        argv: what follows `hub run <name>`.

    Returns:
        What to print on standard output, if everything went well.

    Exits:
        With status 1 and one line on standard error if the run cannot start; with status 1 after printing
        the answers if some images failed.
    """
    args = parser(name).parse_args(argv)
    work = _embed if _task(args) == "embed" else _classify
    try:
        predictor = predictor_with(**{name: getattr(args, name) for name in _LOADING if getattr(args, name)})
        output, failures = work(predictor, args)
    except ClipError as error:
        sys.exit(f"hub run {name}: {error}")
    if not failures:
        return output
    print(output)
    plural = "s" if len(failures) > 1 else ""
    print(f"{len(failures)} image{plural} failed:", *failures, sep="\n  ", file=sys.stderr)
    sys.stdout.flush()
    sys.exit(1)


def _task(args: argparse.Namespace) -> str:
    return args.task or ("embed" if args.input_text and not args.input_path else "classify")


def _classify(predictor: Predictor, args: argparse.Namespace) -> tuple[str, list[str]]:
    if args.input_text:
        raise RequestError("--input_text goes with --task embed; labels to choose from go with --labels")
    if args.top_k < 1:
        raise RequestError(f"--top_k is {args.top_k}, expected a whole number from 1")
    prompts = predictor.prompts(_labels(args), args.templates)
    paths = _input_paths(args.input_path)
    if args.visualization:
        _make_folder(args.output_dir)
    with tqdm(desc="labels", unit="label", delay=2, file=sys.stderr) as bar:
        # Before the first image, so that bad labels end the run there.
        vectors = predictor.label_embeddings(prompts, args.use_gpu, lambda *done: _advance(bar, *done))
    results, errors = [], []
    for path, feature in _features(predictor, paths, args):
        if isinstance(feature, ImageError):
            errors.append({"path": str(path), "error": str(feature)})
            continue
        answer = predictor.top_k_labels(feature, vectors, prompts.labels, args.top_k)
        results.append({"path": str(path), "labels": answer})
        if args.visualization and (error := _visualize(path, answer, Path(args.output_dir), len(results))):
            errors.append({"path": str(path), "error": error})
    return _render(results, errors, args, _answer_table), [error["error"] for error in errors]


def _embed(predictor: Predictor, args: argparse.Namespace) -> tuple[str, list[str]]:
    if args.visualization:
        raise RequestError("--visualization shows scores: it goes with --task classify")
    texts = check_texts(args.input_text) if args.input_text else []
    if args.labels or args.labels_file or args.templates:
        raise RequestError(
            "--labels and --templates go with --task classify; texts to embed go with --input_text"
        )
    paths = _input_paths(args.input_path) if args.input_path or not texts else []
    results: list[dict[str, Any]] = []
    errors = []
    if texts:
        vectors = l2_normalize(predictor.text_features(texts, args.batch_size, args.use_gpu))
        results += [
            {"text": text, "embedding": vector.tolist()} for text, vector in zip(texts, vectors, strict=True)
        ]
    for path, feature in _features(predictor, paths, args):
        if isinstance(feature, ImageError):
            errors.append({"path": str(path), "error": str(feature)})
        else:
            results.append({"path": str(path), "embedding": l2_normalize(feature).tolist()})
    return _render(results, errors, args, _embedding_table), [error["error"] for error in errors]


def _features(
    predictor: Predictor, paths: list[Path], args: argparse.Namespace
) -> Iterator[tuple[Path, np.ndarray | ImageError]]:
    """Each path's feature or error, with a progress bar on standard error when there are several."""
    named = ((str(path), path) for path in paths)
    batches = predictor.image_features(named, args.batch_size, args.use_gpu)
    waiting = iter(paths)
    with tqdm(total=len(paths), unit="picture", disable=len(paths) < 2, file=sys.stderr) as bar:
        for batch in batches:
            for feature in batch:
                yield next(waiting), feature
            bar.update(len(batch))


def _advance(bar: tqdm, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


# --- input -------------------------------------------------------------------------------------------


def _input_paths(given: str | None) -> list[Path]:
    """The images that `--input_path` means: a file, a folder's images, or a glob's matches."""
    if not given:
        raise RequestError("--input_path is missing: give an image, a folder or a glob")
    path = Path(given).expanduser()
    if path.is_dir():
        found = sorted(
            file for file in path.iterdir() if file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES
        )
        if not found:
            raise RequestError(
                f"--input_path {given}: the folder has no images ({' '.join(sorted(IMAGE_SUFFIXES))})"
            )
        return found
    if path.exists():
        return [path]
    found = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
    if not found:
        raise RequestError(f"--input_path {given}: no such file or folder, and no match as a glob")
    return found


def _labels(args: argparse.Namespace) -> list[str] | None:
    if args.labels is not None and args.labels_file is not None:
        raise RequestError("give --labels or --labels_file, not both")
    if args.labels is not None:
        return [label.strip() for label in args.labels.split(",")]
    if args.labels_file is None:
        return None
    try:
        lines = Path(args.labels_file).expanduser().read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            f"--labels_file {args.labels_file}: cannot be read as UTF-8 text ({error})"
        ) from error
    labels = [line.strip() for line in lines if line.strip()]
    if not labels:
        raise RequestError(f"--labels_file {args.labels_file}: has no labels, expected one per line")
    return labels


# --- output ------------------------------------------------------------------------------------------


def _render(results: list, errors: list, args: argparse.Namespace, table: Any) -> str:
    if args.format == "json":
        return json.dumps({"results": results, "errors": errors})  # ASCII, which every console can print
    return "\n".join(table(result) for result in results)


def _answer_table(result: dict[str, Any]) -> str:
    answer: Answer = result["labels"]
    rows = [f"  {float(item['score']):7.2%}  {item['label']}" for item in answer]
    return "\n".join([result["path"], *rows])


def _embedding_table(result: dict[str, Any]) -> str:
    vector = result["embedding"]
    head = ", ".join(f"{number:.4f}" for number in vector[:6])
    return f"{result.get('path', result.get('text'))}\n  {len(vector)} numbers: {head}, ..."


def _make_folder(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--output_dir {folder}: cannot be made ({error.strerror})") from error


def _visualize(path: Path, answer: Answer, folder: Path, number: int) -> str | None:
    """Save an image with its answer; returns what went wrong, since the other answers still count."""
    from ..visualize import save_answer  # matplotlib takes a second to import

    target = folder / f"{number:04d}_{path.stem}.png"
    try:
        save_answer(open_image(path, str(path)), answer, path.name, target)
    except (OSError, ImageError) as error:
        return f"{path}: its image {target} cannot be saved ({error})"
    return None
