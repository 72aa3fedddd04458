"""`clip-hub engine`: what runs a module on the CPU here, and why; with `--check`, what each engine does."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..engines.compile_cache import kept_folder
from ..engines.select import choose
from ..errors import RequestError
from ..system.file_names import printable
from ..system.words import counted
from ..weights.locate import require_local
from . import options
from .prediction import Outcome, images_of
from .reporting import emit, report_unread

if TYPE_CHECKING:
    from ..evaluation.engine_check import EngineCheck

_OF_A_CHECK = ("labels", "labels_file", "templates", "exif_rotation", "fast_jpeg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("module", type=options.record, metavar="NAME")
    options.add_weights(parser)
    options.add_engine(parser)
    check = parser.add_argument_group("compare all engines and precisions on your images")
    check.add_argument(
        "--check",
        nargs="+",
        action="extend",
        metavar="IMAGE",
        help="images, folders of images, globs: measure speed, and the difference from float32",
    )
    options.add_labels(check, "labels to choose the first answer from")
    options.add_templates(check)
    options.add_format(check)
    options.add_reading(check)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the engine and where its compiled model is, or a check; the status is 1 if an image failed."""
    if args.check:
        return _check(args)
    given = [name for name in _OF_A_CHECK if getattr(args, name)]
    if given or args.format != "table":
        raise RequestError(f"--{(given or ['format'])[0]} goes with --check IMAGE")
    name, precision, why = choose(args.engine or "auto", args.precision or "float32")
    emit(f"{name}, {precision}: {why}")
    found = require_local(args.module, args.weights)
    if name != "paddle":
        folder = kept_folder(found, name, precision)
        emit(f"compiled: {folder}" if folder else "not compiled yet: the first call does that")
    return 0


def _check(args: argparse.Namespace) -> int:
    if args.engine or args.precision:
        raise RequestError("--check measures every engine and precision: leave --engine and --precision out")
    outcome = Outcome()
    paths = [path for given in args.check for path in images_of(given, None, outcome, "--check")]
    labels = options.given_labels(args)
    from ..evaluation.engine_check import check_engines

    predictor = options.predictor_options(args).predictor(args.module)
    found = check_engines(predictor, [(str(path), path) for path in paths], labels, args.templates)
    errors = {**{error["path"]: error["error"] for error in outcome.errors}, **found.errors}
    if args.format == "json":
        listed = [{"path": path, "error": error} for path, error in errors.items()]
        emit(json.dumps({**asdict(found), "errors": listed}))
    else:
        emit(_table(found))
    return report_unread(errors, "left out")


def _table(found: EngineCheck) -> str:
    """A row for each engine and precision, then what does not run here."""
    columns = f"{'images/s':>9}{'mean cosine':>13}{'least':>10}{'equal answers':>15}"
    lines = [
        f"{counted(found.images, 'image')}, {counted(found.labels, 'label')}; speed of the image encoder in "
        f"batches of {found.batch_size}; cosines and first answers beside {found.reference} in float32",
        "",
        f"{'engine':<13}{'precision':<11}{columns}",
    ]
    for row in found.rows:
        figures = f"{row.images_per_second:>9.1f}{row.mean_cosine:>13.6f}{row.least_cosine:>10.6f}"
        lines.append(f"{row.engine:<13}{row.precision:<11}{figures}{row.equal_first_answers:>15.1%}")
    lines += [f"not here: {name}: {printable(why)}" for name, why in found.refused.items()]
    return "\n".join(lines)
