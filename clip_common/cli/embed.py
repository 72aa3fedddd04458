"""`clip-hub embed`: the embeddings of many images, as Parquet."""

from __future__ import annotations

import argparse

from ..engines.base import ENGINES
from ..system.file_names import shown_name
from ..system.optional import require_package
from ..system.secrets import hide_secrets
from ..system.words import were
from . import options
from .reporting import complain, complain_of_the_first, emit, note

_EXECUTORS = ("local", "ray")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="folders, images, .tar shards, s3://BUCKET/PREFIX, gs://, globs of these, .txt lists of paths "
        "or addresses, .csv/.tsv/.parquet of them or of captions",
    )
    parser.add_argument(
        "--output",
        type=options.output_store,
        required=True,
        help="folder of Parquet parts, or s3://BUCKET/PREFIX; a run that was interrupted continues",
    )
    options.add_module(parser)
    parser.add_argument("--executor", choices=_EXECUTORS, help="this process, or Ray Data; default: local")
    parser.add_argument("--address", help="a running Ray cluster (--executor ray); default: this machine")
    options.add_weights(parser)
    _add_engine(parser)
    options.add_precision(parser)
    options.add_use_gpu(parser)
    options.add_batch_size(parser)
    options.add_reading(parser)
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="type of the stored embeddings; default: float32",
    )
    parser.add_argument(
        "--part_size",
        type=options.count,
        default=1000,
        metavar="N",
        help="images per part; if the process is killed, at most these are lost; default: 1000",
    )
    parser.add_argument(
        "--prune", action="store_true", help="remove embeddings that are no longer among the sources"
    )
    parser.add_argument(
        "--prune_all", action="store_true", help="like --prune, even if all embeddings are removed"
    )
    parser.set_defaults(run=run)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    """`--engine`; and as it was until 1.1: `--engine local|ray`, with `--runtime` for the engine."""
    parser.add_argument(
        "--engine",
        choices=(*ENGINES, *_EXECUTORS),
        metavar=options.choices_of(ENGINES),
        help="the engine for the CPU; default: auto",
    )
    parser.add_argument("--runtime", choices=ENGINES, help=argparse.SUPPRESS)


def _split_engine(args: argparse.Namespace) -> None:
    if args.engine in _EXECUTORS:
        args.executor, args.engine = args.executor or args.engine, None
    args.engine = args.engine or args.runtime


def run(args: argparse.Namespace) -> int:
    """Embed; the exit status is 1 if something has no embedding."""
    _split_engine(args)
    ray = args.executor == "ray"
    if ray:
        require_package("ray", "ray")
    from ..embedding.embed import embed
    from ..embedding.parts import Job
    from ..embedding.sources import items_of

    job = Job(
        record=args.module,
        options=options.predictor_options(args),
        batch_size=args.batch_size,
        use_gpu=args.use_gpu,
        dtype=args.dtype,
        part_size=args.part_size,
    )
    items = items_of(args.sources, may_be_empty=args.prune_all)
    report = embed(items, args.output, job, args.prune, args.address, ray, prune_all=args.prune_all)
    output = shown_name(hide_secrets(str(args.output)))
    emit(
        f"{output}: {report.embedded} embedded, {were(report.known)} there, "
        f"{report.removed} removed, {report.failed} failed, {report.failed_before} failed before"
    )
    if report.passed_over:
        note(f"skipped: {report.passed_over}")
    if report.kept:
        note(f"{were(report.kept)} not removed: they may be in a source that could not be read")
    for fault in report.faults:
        complain(fault)
    if report.reasons:
        complain_of_the_first(report.reasons)
        complain(f"all of them: {args.output}/errors.parquet")
    return 0 if report.complete else 1
