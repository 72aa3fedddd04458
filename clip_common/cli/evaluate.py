"""`python -m clip_common evaluate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from ..config import PRETRAINED, pretrained
from ..predictor import Predictor
from ..system.optional import require_package


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a folder with a folder per class, a .csv with path and label (or caption), or NAME:FOLDER of a "
        "usual data set: cifar10, cifar100, food101, oxford-pets, fashion-mnist, imagenet",
    )
    parser.add_argument("--module", choices=PRETRAINED, default="clip_mini")
    parser.add_argument("--weights", help="a weights file in place of the module's own")
    parser.add_argument(
        "--templates", action="append", help="a template with {}, repeatable, or openai, openai7"
    )
    parser.add_argument("--classes_file", type=Path, help="class names, one on a line, in their order")
    parser.add_argument("--train", metavar="DATA", help="also fit a linear probe to these images")
    parser.add_argument("--retrieval", action="store_true", help="DATA is a .csv with path and caption")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--output_dir", type=Path, help="write figures.json, figures.md and plots there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print; the exit status is 1 if an image could not be read."""
    from ..evaluation import evaluate, report
    from ..evaluation.datasets import read_captioned, read_labelled

    if args.train:
        require_package("sklearn", "evaluate")
    predictor = Predictor(pretrained(args.module), args.weights)
    figures: dict[str, evaluate.Figures] = {}
    if args.retrieval:
        figures["retrieval"] = evaluate.retrieval(predictor, read_captioned(args.data), args.batch_size)
    else:
        classes = args.classes_file.read_text("utf-8").splitlines() if args.classes_file else None
        data = read_labelled(args.data, classes)
        figures["zero-shot"] = evaluate.zero_shot(predictor, data, args.templates, args.batch_size)
        if args.train:
            train = read_labelled(args.train, data.classes)
            figures["linear probe"] = evaluate.linear_probe(predictor, train, data, args.batch_size)
    print(report.as_table(figures))
    if args.output_dir:
        report.write(figures, args.output_dir)
    errors = {name: fault for found in figures.values() for name, fault in found.errors.items()}
    return report_unread(errors, "are not counted")


def report_unread(errors: Mapping[str, str], consequence: str) -> int:
    """Say which images could not be read, the first ten by name; returns the exit status."""
    for fault in list(errors.values())[:10]:
        print(fault, file=sys.stderr)
    if errors:
        print(f"{len(errors)} images could not be read and {consequence}", file=sys.stderr)
    return 1 if errors else 0
