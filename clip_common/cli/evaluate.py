"""`clip-hub evaluate`: accuracy on images whose classes are known."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..system.optional import require_package
from . import options
from .reporting import emit, report_unread

if TYPE_CHECKING:
    from ..evaluation.evaluate import Figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a folder with a folder per class, a .csv with path and label (or caption), or NAME:FOLDER of a "
        "usual data set: cifar10, cifar100, food101, oxford-pets, fashion-mnist, imagenet",
    )
    options.add_module(parser)
    options.add_templates(parser)
    parser.add_argument("--classes_file", type=Path, help="class names, one on a line, in their order")
    parser.add_argument("--train", metavar="DATA", help="also fit a linear probe to these images")
    parser.add_argument("--retrieval", action="store_true", help="DATA is a .csv with path and caption")
    options.add_model(parser)
    parser.add_argument("--output_dir", type=Path, help="write figures.json, figures.md and plots there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print; the exit status is 1 if an image could not be read."""
    if args.train:
        require_package("sklearn", "evaluate")
    from ..evaluation import report

    figures = _figures(args)
    emit(report.as_table(figures))
    if args.output_dir:
        report.write(figures, args.output_dir)
    errors = {name: fault for found in figures.values() for name, fault in found.errors.items()}
    return report_unread(errors, "not counted")


def _figures(args: argparse.Namespace) -> dict[str, Figures]:
    """The figures of each task."""
    from ..evaluation import evaluate
    from ..evaluation.datasets import read_captioned, read_class_names, read_labelled

    predictor = options.predictor_options(args).predictor(args.module)
    running = {"batch_size": args.batch_size, "use_gpu": args.use_gpu}
    if args.retrieval:
        return {"retrieval": evaluate.retrieval(predictor, read_captioned(args.data), **running)}
    classes = read_class_names(args.classes_file) if args.classes_file else None
    data = read_labelled(args.data, classes)
    figures = {"zero-shot": evaluate.zero_shot(predictor, data, args.templates, **running)}
    if args.train:
        train = read_labelled(args.train, data.classes)
        figures["linear probe"] = evaluate.linear_probe(predictor, train, data, **running)
    return figures
