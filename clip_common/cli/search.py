"""`clip-hub search`: find images by words, by an image, or by both."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..system.optional import require_package
from . import options
from .reporting import emit, note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("text", nargs="?", metavar="WORDS")
    parser.add_argument("--image", help="an image to search with, alone or together with words")
    parser.add_argument(
        "--text_weight",
        type=options.share,
        default=0.5,
        help="of words beside an image, 0 to 1; default: 0.5",
    )
    parser.add_argument("--index", required=True, help="as `index` was given it")
    options.add_module(parser, "the model that made the index")
    options.add_weights(parser)
    options.add_engine(parser)
    options.add_use_gpu(parser)
    options.add_reading(parser)
    options.add_top_k(parser, 10, "images to print; default: 10")
    parser.add_argument("--path", help="only paths like this pattern; * stands for anything")
    parser.add_argument("--min_width", type=options.whole, default=0, metavar="PIXELS")
    parser.add_argument("--min_height", type=options.whole, default=0, metavar="PIXELS")
    options.add_format(parser)
    parser.add_argument("--output_dir", type=Path, help="also write the images found on a sheet, search.png")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search; nothing found is not an error."""
    require_package("pymilvus", "search")
    from ..embedding.embed import Job
    from ..search.hits import Filter
    from ..search.index import Index
    from ..search.query import as_json, as_table, query_vector, write_contact_sheet

    index = Index(args.index, must_exist=True)
    job = Job(args.module, options.predictor_options(args))
    predictor = job.predictor()
    vector = query_vector(predictor, args.text, args.image, args.text_weight, args.use_gpu)
    limit_to = Filter(args.path, args.min_width, args.min_height)
    hits = index.search(job.origin(predictor), vector, args.top_k, limit_to)
    index.close()
    emit(as_json(hits) if args.format == "json" else as_table(hits))
    if args.output_dir:
        title = " + ".join(part for part in (args.text, args.image and Path(args.image).name) if part)
        note(str(write_contact_sheet(hits, title, args.output_dir)))
    return 0
