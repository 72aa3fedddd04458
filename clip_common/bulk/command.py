"""`python -m clip_common embed`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..config import PRETRAINED, pretrained
from ..engine import ENGINES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="folders, pictures, globs, .tar shards, .txt lists, .csv/.tsv/.parquet of paths or captions",
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of Parquet parts; goes on where it was"
    )
    parser.add_argument("--module", choices=PRETRAINED, default="clip_mini")
    parser.add_argument("--weights", help="a weights file in place of the module's own")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="this process, or Ray Data"
    )
    parser.add_argument(
        "--address", help="a running Ray cluster (--engine ray); default: one on this machine"
    )
    parser.add_argument("--runtime", choices=ENGINES, default="auto", help="what multiplies the matrices")
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="of stored vectors"
    )
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument(
        "--part_size", type=int, default=1000, help="pictures in a part, and lost at most by a kill"
    )
    parser.add_argument("--use_gpu", action="store_true")
    parser.add_argument("--exif_rotation", action="store_true", help="turn pictures as their EXIF tag says")
    parser.add_argument(
        "--prune", action="store_true", help="take out what is not among the sources any more"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Embed; the exit status is 1 if something has no vector."""
    from .embed import Job, embed
    from .sources import items_of

    job = Job(
        record=pretrained(args.module),
        weights=args.weights,
        engine=args.runtime,
        exif_rotation=args.exif_rotation,
        batch_size=args.batch_size,
        use_gpu=args.use_gpu,
        dtype=args.dtype,
        part_size=args.part_size,
    )
    report = embed(items_of(args.sources), args.output, job, args.prune, args.address, args.engine == "ray")
    print(
        f"{args.output}: {report.embedded} embedded, {report.known} were there, {report.removed} taken out, "
        f"{report.failed} failed, {report.failed_before} failed before"
    )
    failed = report.failed + report.failed_before
    if failed:
        print(f"why: {args.output / 'errors.parquet'}", file=sys.stderr)
    return 1 if failed else 0
