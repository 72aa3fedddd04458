"""`clip-hub classify`: what `hub run` does, without PaddleHub; the options that both have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..errors import RequestError
from ..system.log import logger
from . import options
from .prediction import Classification, Embedding, perform
from .reporting import complain, emit

_OUTPUT = Path("clip_output")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options: those of `hub run`, an image by its place, and the module by its name."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="images, folders of images, globs")
    options.add_module(parser)
    add_inputs(parser)
    add_config(parser)
    parser.set_defaults(run=run)


def add_inputs(target: options.Target) -> None:
    """What is fed into the model."""
    target.add_argument(
        "--input_path", action="append", help="an image, a folder of images, or a glob in quotes; repeatable"
    )
    target.add_argument(
        "--input_text", type=options.text, action="append", help="a text to embed; repeatable"
    )
    options.add_labels(target, "labels to choose from")


def add_config(target: options.Target) -> None:
    """How it is run, and what is printed."""
    target.add_argument("--task", choices=("classify", "embed"), help="default: classify, or embed for texts")
    options.add_templates(target)
    options.add_top_k(target, 5, "labels to print per image at most; default: 5")
    options.add_scores(target)
    options.add_format(target)
    options.add_flag(target, "--visualization", "save each image with its scores as bars")
    options.add_flag(
        target,
        "--explain",
        "save each image with heat maps of its best labels, at most three: which parts support them",
    )
    target.add_argument(
        "--output_dir",
        type=options.output_folder,
        help="where --visualization and --explain save; default: clip_output",
    )
    options.add_model(target)


def run(args: argparse.Namespace) -> int:
    """Print the answers; the exit status is 1 if an image failed."""
    task = task_of(args, args.images)
    outcome = perform(options.predictor_options(args).predictor(args.module), task)
    emit(outcome.rendered(args.format))
    for line in outcome.failures():
        complain(line)
    return 1 if outcome.errors else 0


def task_of(args: argparse.Namespace, images: Sequence[str] = ()) -> Classification | Embedding:
    """The task that the command line requests, for the images of `--input_path` and `images`.

    Raises:
        RequestError: options that cannot be combined.
    """
    inputs = [*images, *(args.input_path or [])]
    task = args.task or ("embed" if args.input_text and not inputs else "classify")
    if args.output_dir and not args.visualization and not args.explain:
        logger.warning(
            "nothing is saved in --output_dir: it is for --visualization and --explain%s",
            "; `clip-hub embed` saves embeddings" if task == "embed" else "",
        )
    return _embedding(args, inputs) if task == "embed" else _classification(args, inputs)


def _classification(args: argparse.Namespace, inputs: Sequence[str]) -> Classification:
    if args.input_text:
        raise RequestError("--input_text goes with --task embed; labels to choose from go with --labels")
    output = args.output_dir or _OUTPUT
    return Classification(
        inputs,
        options.given_labels(args),
        args.templates,
        args.top_k,
        args.batch_size,
        args.use_gpu,
        output if args.visualization else None,
        args.scores,
        args.thresholds,
        output if args.explain else None,
    )


def _embedding(args: argparse.Namespace, inputs: Sequence[str]) -> Embedding:
    if args.explain:
        raise RequestError("--explain needs labels: it goes with --task classify")
    if args.visualization:
        raise RequestError("--visualization shows scores: it goes with --task classify")
    if args.labels or args.labels_file or args.templates:
        raise RequestError(
            "--labels and --templates go with --task classify; texts to embed go with --input_text"
        )
    if args.scores or args.thresholds is not None:
        raise RequestError("--scores and --thresholds need labels: they go with --task classify")
    return Embedding(inputs, args.input_text or (), args.batch_size, args.use_gpu)
