"""`clip-hub adapt`: adapt a module to images of your own."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.base import ENGINES
from ..system.file_names import shown_name
from ..system.optional import require_package
from . import options
from .reporting import complain, emit, report_unread

if TYPE_CHECKING:
    from ..adaptation.prepare import Prepared
    from ..adaptation.task import AdaptationTask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options; they are named as the fields of `AdaptationTask`."""
    parser.add_argument(
        "data",
        type=options.place,
        metavar="DATA",
        help="a folder with a folder per class, a .csv with path and label, or with path and caption, or "
        "NAME:FOLDER as for `evaluate`",
    )
    parser.add_argument("--output", type=options.output_folder, required=True, help="folder of the run")
    options.add_module(parser, "the model to adapt")
    options.add_weights(parser)
    held_out = parser.add_mutually_exclusive_group()
    held_out.add_argument(
        "--held_out",
        type=options.share,
        default=0.1,
        help="share of images to hold out; 0 only with --head cache; default: 0.1",
    )
    held_out.add_argument("--validation", metavar="DATA", help="images to hold out in place of a share")
    parser.add_argument("--reference", metavar="DATA", help="other images, whose accuracy is reported too")
    parser.add_argument(
        "--head",
        choices=("text", "probe", "cache"),
        default="text",
        help="what the embeddings of the classes start from: their names (text) or a linear probe; or, "
        "without training, a cache of the images in addition to the names; default: text",
    )
    options.add_flag(
        parser, "--lock_image_tower", "do not train the image tower; its features are computed once"
    )
    parser.add_argument("--flip", action="store_true", help="also train on mirrored images")
    parser.add_argument(
        "--alpha",
        type=options.not_negative,
        help="mixture of the weights, from 0 (original) to 1 (adapted); for a cache, its weight; default: "
        "the best on held-out images",
    )
    parser.add_argument(
        "--beta",
        type=options.rate,
        help="how fast the influence of an image in a cache falls with its distance; default: the best "
        "with each image left out",
    )
    parser.add_argument("--epochs", type=options.count, default=10, help="default: 10")
    options.add_batch_size(parser, 64)
    parser.add_argument("--learning_rate", type=options.rate, help="default: the module's")
    parser.add_argument("--weight_decay", type=options.not_negative, default=0.1, help="default: 0.1")
    parser.add_argument("--bfloat16", action="store_true", help="mixed precision, if the GPU supports it")
    options.add_use_gpu(parser)
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        help="the engine for the original model on the CPU; default: auto",
    )
    options.add_reading(parser)
    parser.add_argument(
        "--workers", type=options.count, default=1, help="processes that share a batch: one for each GPU"
    )
    parser.add_argument("--seed", type=options.whole, default=0, help="default: 0")
    parser.add_argument(
        "--save_every", type=options.count, default=100, help="steps between checkpoints; default: 100"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the run's checkpoint")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Adapt and print; the exit status is 1 if an image could not be read."""
    if args.head == "probe":
        require_package("sklearn", "evaluate")
    from ..adaptation.task import AdaptationTask

    chosen_options = {field.name: getattr(args, field.name) for field in fields(AdaptationTask)}
    task = AdaptationTask(**{**chosen_options, "module": args.module.name, "engine": args.engine or "auto"})
    return _by_cache(task) if task.head == "cache" else _by_training(task)


def _by_training(task: AdaptationTask) -> int:
    from ..adaptation.adapt import adapt

    adapted = adapt(task)
    emit(f"{'':<24}held out  reference")
    emit(_row("before", adapted.points[0].held_out, adapted.points[0].reference))
    if adapted.probe is not None:
        emit(_row("linear probe", adapted.probe, None))
    emit(_row("all adapted", adapted.points[-1].held_out, adapted.points[-1].reference))
    chosen = adapted.chosen
    emit(_row(f"alpha {chosen.alpha:g}, written", chosen.held_out, chosen.reference))
    if chosen.alpha == 0 and task.alpha is None:
        complain(
            f"adapting did not help: {adapted.path} holds the weights as they were, since no mixture with "
            "the adapted ones gets more of the held-out images right; try more images, other --epochs or "
            "another --learning_rate"
        )
        return report_unread(adapted.prepared.errors, "left out")
    return _end(task, adapted.path, adapted.prepared)


def _by_cache(task: AdaptationTask) -> int:
    from ..adaptation.adapt import adapt_by_cache

    adapted = adapt_by_cache(task)
    fitted, strength = adapted.fitted, adapted.fitted.strength
    emit(f"{'':<24}held out  each left out")
    emit(_row("before", adapted.before, fitted.before))
    emit(_row(f"alpha {strength.alpha:g}, beta {strength.beta:g}", adapted.held_out, fitted.accuracy))
    return _end(task, adapted.path, adapted.prepared)


def _end(task: AdaptationTask, weights: Path, prepared: Prepared) -> int:
    """Print the file, and what to do with it if nothing went wrong; returns the exit status."""
    path = shown_name(str(weights))
    emit(path)
    status = report_unread(prepared.errors, "left out")
    if status == 0:
        emit(f"Try it:   hub run {task.module} --weights {path} --input_path IMAGE")
        emit(f"Pack it:  clip-hub pack {task.module} --weights {path} --name MY_CLIP")
    return status


def _row(name: str, held_out: float | None, other: float | None) -> str:
    cells = ("" if value is None else f"{value:.1%}" for value in (held_out, other))
    return "{:<24}{:>8}  {:>9}".format(name, *cells).rstrip()
