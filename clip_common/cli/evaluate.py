"""`clip-hub evaluate`: accuracy on images whose labels are known, and thresholds fitted to them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..predictor import Predictor
from ..system.file_names import user_path
from ..system.optional import require_package
from ..system.output import require_file
from . import options
from .reporting import complain, emit, note, report_unread

if TYPE_CHECKING:
    from ..evaluation.evaluate import Figures, Scored
    from ..evaluation.labelled import Labelled, MultiLabelled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument(
        "data",
        type=options.place,
        metavar="DATA",
        help="a folder with a folder per class, a .csv with path and label (or labels with | between, or "
        "caption), or NAME:FOLDER of a "
        "known data set: cifar10, cifar100, food101, oxford-pets, fashion-mnist, imagenet",
    )
    options.add_module(parser)
    options.add_templates(parser)
    parser.add_argument(
        "--classes_file",
        type=Path,
        help="class names, one per line, in order; for a known data set they may replace its own",
    )
    parser.add_argument("--train", metavar="DATA", help="also fit a linear probe to these images")
    parser.add_argument("--retrieval", action="store_true", help="DATA is a .csv with path and caption")
    parser.add_argument(
        "--thresholds",
        metavar="FILE",
        help="fit a cosine threshold for each label, and write them to this file for "
        "`classify --thresholds FILE`, with a plot next to it",
    )
    parser.add_argument(
        "--min_precision",
        type=options.part,
        metavar="P",
        help="fit thresholds for the highest recall at this precision; default: for the best F1",
    )
    options.add_model(parser)
    parser.add_argument(
        "--output_dir", type=options.output_folder, help="write figures.json, figures.md and plots there"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print; the exit status is 1 if an image could not be read."""
    _check(args)
    from ..evaluation import report

    predictor = options.predictor_options(args).predictor(args.module)
    figures, data, scored = _figures(predictor, args)
    emit(report.as_table(figures))
    if args.output_dir:
        report.write(figures, args.output_dir)
    if data and scored and args.thresholds:
        _fit_thresholds(predictor, data, scored, args)
    errors = {name: fault for found in figures.values() for name, fault in found.errors.items()}
    return report_unread(errors, "not counted")


def _check(args: argparse.Namespace) -> None:
    """Refuse options that cannot be combined, and a file that cannot be written, before any work."""
    if args.train:
        require_package("sklearn", "evaluate")
    if args.min_precision is not None and args.thresholds is None:
        raise RequestError("--min_precision goes with --thresholds FILE")
    if args.retrieval and (args.thresholds or args.train):
        other = "--thresholds" if args.thresholds else "--train"
        raise RequestError(f"{other} is for labels, --retrieval for captions: give only one of them")
    if args.thresholds:
        path = user_path(args.thresholds)
        if path.suffix.lower() != ".json":
            raise RequestError(f"--thresholds {path}: expected the name of a .json file to write")
        try:
            require_file(path)
        except RequestError as error:
            raise RequestError(f"--thresholds {error}") from None
        _require_own(path)
    if args.output_dir:
        from ..evaluation.report import require_own

        require_own(args.output_dir)


def _require_own(path: Path) -> None:
    """Check that the thresholds and their plot replace only earlier ones."""
    from ..zero_shot.thresholds import Thresholds

    plot = path.with_suffix(".png")
    if not path.exists():
        if plot.exists():
            raise RequestError(f"--thresholds {path}: its plot would replace {plot}: choose another name")
    elif path.stat().st_size:
        try:
            Thresholds.read(path)
        except RequestError:
            raise RequestError(
                f"--thresholds {path} exists and is not a file of thresholds: choose another name"
            ) from None


def _figures(
    predictor: Predictor, args: argparse.Namespace
) -> tuple[dict[str, Figures], Labelled | MultiLabelled | None, Scored | None]:
    """The figures of each task; and, where images have labels, these and how the model sees both."""
    from ..evaluation import evaluate
    from ..evaluation.datasets import (
        read_captioned,
        read_class_names,
        read_labelled,
        read_multi_labelled,
        table_of,
    )

    running = {"batch_size": args.batch_size, "use_gpu": args.use_gpu}
    if args.retrieval:
        figures = evaluate.retrieval(predictor, read_captioned(args.data), **running)
        return {"retrieval": figures}, None, None
    classes = read_class_names(args.classes_file) if args.classes_file else None
    table = table_of(args.data)
    if table and table.place(["labels"]) is not None:
        if args.train:
            raise RequestError("--train needs one label per image, but the data has several")
        several = read_multi_labelled(args.data, classes, table)
        _check_labels(predictor, several.classes, args)
        scored = evaluate.score(predictor, several, args.templates, **running)
        return {"several labels": evaluate.multi_label_figures(several, scored)}, several, scored
    data = read_labelled(args.data, classes, may_rename=True, table=table)
    evaluate.require_classes(data)
    _check_labels(predictor, data.classes, args)
    scored = evaluate.score(predictor, data, args.templates, **running)
    found = {"zero-shot": evaluate.zero_shot_figures(predictor, data, scored)}
    if args.train:
        train = read_labelled(args.train, data.classes, may_rename=classes is not None)
        found["linear probe"] = evaluate.linear_probe(predictor, train, data, **running)
    return found, data, scored


def _check_labels(predictor: Predictor, classes: Sequence[str], args: argparse.Namespace) -> None:
    """Refuse labels that `classify` would refuse when it is given the file of their thresholds."""
    if args.thresholds:
        predictor.labels.prompts(classes, args.templates)


def _fit_thresholds(
    predictor: Predictor, data: Labelled | MultiLabelled, scored: Scored, args: argparse.Namespace
) -> None:
    """Fit thresholds, write them with their plot, and print what they give."""
    from ..evaluation.report import draw_thresholds, thresholds_table
    from ..evaluation.thresholds import fit_thresholds

    path = user_path(args.thresholds)
    fitted = fit_thresholds(scored.cosines, data.truth[scored.kept], data.classes, args.min_precision)
    emit("\n" + thresholds_table(fitted))
    for label, why in fitted.refused.items():
        complain(f"no threshold for {label!r}: {why}")
    fitted.write(predictor, scored, path)
    draw_thresholds(fitted, path.with_suffix(".png"))
    note(f"{path}, {path.with_suffix('.png')}")
