"""`clip-hub search`: find images by words, by images, or by both."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from . import options
from .reporting import emit, note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument(
        "words",
        type=options.text,
        nargs="*",
        metavar="WORDS",
        help="what the images show; `a dog - snow + a beach^0.5` subtracts and adds, with weights",
    )
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        help="an image to search with, alone or with words; repeatable",
    )
    parser.add_argument(
        "--like",
        action="append",
        default=[],
        metavar="PATH",
        help="like --image, for an image in the index, by its path there; its file is not needed; repeatable",
    )
    parser.add_argument(
        "--text_weight",
        type=options.share,
        default=0.5,
        help="weight of the words relative to the images, 0 to 1; default: 0.5",
    )
    parser.add_argument("--index", required=True, help="the index, as given to `index`")
    options.add_module(parser, "the model that made the index")
    options.add_weights(parser)
    options.add_engine(parser)
    options.add_use_gpu(parser)
    options.add_reading(parser)
    options.add_top_k(parser, 10, "images to print; default: 10")
    parser.add_argument("--path", help="only paths that match this pattern; * stands for anything")
    parser.add_argument("--min_width", type=options.whole, default=0, metavar="PIXELS")
    parser.add_argument("--min_height", type=options.whole, default=0, metavar="PIXELS")
    parser.add_argument(
        "--min_score",
        type=options.cosine,
        default=-math.inf,
        metavar="COSINE",
        help="only results with at least this score",
    )
    parser.add_argument(
        "--fold",
        type=options.cosine,
        metavar="COSINE",
        help="group results with at least this cosine to each other, such as 0.95 for near-duplicates",
    )
    options.add_format(parser)
    parser.add_argument(
        "--output_dir", type=options.output_folder, help="also write a contact sheet, search.png, here"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search; nothing found is not an error."""
    from ..embedding.origin import Origin
    from ..search.hits import Filter
    from ..search.index import open_index
    from ..search.query import Query, as_json, as_table

    index = open_index(args.index, must_exist=True)
    predictor = options.predictor_options(args).predictor(args.module)
    query = Query(" ".join(args.words) if args.words else None, args.image, args.text_weight)
    origin = Origin.of(predictor)
    index.require(origin)
    like = [index.find(origin, path) for path in args.like]
    vector = query.embedding(predictor, [vector for _, vector in like], args.use_gpu)
    limit_to = Filter(
        args.path, args.min_width, args.min_height, args.min_score, frozenset(path for path, _ in like)
    )
    hits = index.search(origin, vector, args.top_k, limit_to, args.fold)
    index.close()
    emit(as_json(hits) if args.format == "json" else as_table(hits))
    if args.output_dir:
        from ..search.contact_sheet import write_contact_sheet

        images = [Path(image).name for image in (*args.image, *args.like)]
        title = " + ".join([*([query.words] if query.words else []), *images])
        note(str(write_contact_sheet(hits, title, args.output_dir)))
    return 0
