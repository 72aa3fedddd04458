"""`python -m clip_common embed`, `index`, `search`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..config import PRETRAINED, pretrained
from ..engines.base import ENGINES, PRECISIONS
from ..errors import RequestError
from ..system.optional import require_package


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="folders, images, globs, .tar shards, .txt lists, .csv/.tsv/.parquet of paths or captions",
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
        "--precision", choices=PRECISIONS, default="float32", help="what they are multiplied in"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="of stored vectors"
    )
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument(
        "--part_size", type=int, default=1000, help="images in a part, and lost at most by a kill"
    )
    parser.add_argument("--use_gpu", action="store_true")
    parser.add_argument("--exif_rotation", action="store_true", help="turn images as their EXIF tag says")
    parser.add_argument(
        "--fast_jpeg", action="store_true", help="decode large JPEG photos at a fraction of their size"
    )
    parser.add_argument(
        "--prune", action="store_true", help="take out what is not among the sources any more"
    )
    parser.set_defaults(run=run)


def add_index_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `index`."""
    parser.add_argument("vectors", type=Path, metavar="VECTORS", help="a folder that `embed` wrote")
    parser.add_argument(
        "--index", required=True, help="a file that ends in .db, or http://HOST:19530 of Milvus"
    )
    parser.set_defaults(run=run_index)


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `search`."""
    parser.add_argument("text", nargs="?", metavar="WORDS")
    parser.add_argument("--image", help="an image to search with, alone or together with words")
    parser.add_argument("--text_weight", type=float, default=0.5, help="of words beside an image, 0 to 1")
    parser.add_argument("--index", required=True, help="as `index` was given it")
    parser.add_argument("--module", choices=PRETRAINED, default="clip_mini", help="that made the index")
    parser.add_argument("--weights", help="a weights file in place of the module's own")
    parser.add_argument("--top_k", type=int, default=10)
    parser.add_argument("--path", help="only paths like this pattern; * stands for anything")
    parser.add_argument("--min_width", type=int, default=0, help="pixels")
    parser.add_argument("--min_height", type=int, default=0, help="pixels")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--output_dir", type=Path, help="also write the images found on a sheet, search.png")
    parser.set_defaults(run=run_search)


def run_index(args: argparse.Namespace) -> int:
    """Make an index hold what a folder of vectors holds."""
    require_package("pymilvus", "search")
    from ..embedding.store import Store
    from ..search.index import Index

    index = Index(args.index)
    changes = index.sync(Store(args.vectors))
    index.close()
    print(f"{args.index}: {changes.added} added, {changes.kept} were there, {changes.removed} removed")
    return 0


def run_search(args: argparse.Namespace) -> int:
    """Search; nothing found is not an error."""
    require_package("pymilvus", "search")
    from ..embedding.embed import Job
    from ..predictor import PredictorOptions
    from ..search.index import Filter, Index
    from ..search.query import as_json, as_table, query_vector, write_contact_sheet

    if args.top_k < 1:
        raise RequestError(f"--top_k is {args.top_k}, expected a whole number from 1")
    index = Index(args.index, must_exist=True)
    job = Job(pretrained(args.module), PredictorOptions(args.weights))
    predictor = job.predictor()
    vector = query_vector(predictor, args.text, args.image, args.text_weight)
    limit_to = Filter(args.path, args.min_width, args.min_height)
    hits = index.search(job.origin(predictor), vector, args.top_k, limit_to)
    index.close()
    print(as_json(hits) if args.format == "json" else as_table(hits))
    if args.output_dir:
        title = " + ".join(part for part in (args.text, args.image and Path(args.image).name) if part)
        print(write_contact_sheet(hits, title, args.output_dir), file=sys.stderr)
    return 0


def run(args: argparse.Namespace) -> int:
    """Embed; the exit status is 1 if something has no vector."""
    if args.engine == "ray":
        require_package("ray", "ray")
    from ..embedding.embed import Job, embed
    from ..embedding.sources import items_of
    from ..predictor import PredictorOptions

    job = Job(
        record=pretrained(args.module),
        options=PredictorOptions(
            args.weights, args.exif_rotation, args.fast_jpeg, args.runtime, args.precision
        ),
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
