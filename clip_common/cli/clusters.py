"""`clip-hub clusters`: images sorted into clusters, with names from labels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import pretrained
from ..system.optional import require_package
from . import options
from .reporting import emit, note, report_left_out

if TYPE_CHECKING:
    from ..search.clusters import Cluster


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    options.add_stores(parser)
    parser.add_argument(
        "--clusters", type=options.count, default=10, metavar="N", help="number of clusters; default: 10"
    )
    options.add_labels(parser, "labels to name the clusters with")
    options.add_templates(parser)
    options.add_weights(parser)
    options.add_engine(parser)
    options.add_format(parser)
    parser.add_argument(
        "--output_dir", type=options.output_folder, help="also write a contact sheet, clusters.png, here"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Find clusters and print them; the exit status is 1 if an image has no usable embedding."""
    require_package("sklearn", "evaluate")
    from ..search.clusters import as_json, as_table, find_clusters
    from ..search.stored_images import read_images

    stored = read_images(args.embeddings)
    predictor = options.predictor_options(args).predictor(pretrained(stored.origin.module))
    prompts = predictor.labels.prompts(options.given_labels(args), args.templates)
    clusters = find_clusters(stored, args.clusters, prompts, predictor)
    emit(as_json(stored, clusters) if args.format == "json" else as_table(clusters))
    if args.output_dir:
        path = args.output_dir / "clusters.png"
        _write_sheet(clusters, path)
        note(str(path))
    return report_left_out(stored)


def _write_sheet(clusters: list[Cluster], path: Path) -> None:
    """The clusters, each in a row: its size and name, and the images nearest to its mean."""
    from ..search.contact_sheet import write_rows

    rows = []
    for cluster in clusters:
        (first, *others) = cluster.members
        caption = f"{len(cluster.members)} x {cluster.name}"
        rows.append([(first.image, caption)] + [(one.image, Path(one.image.path).name) for one in others])
    write_rows(rows, f"{len(clusters)} clusters", path)
