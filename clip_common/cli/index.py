"""`clip-hub index`: embeddings into an index that `search` looks into."""

from __future__ import annotations

import argparse

from ..system.file_names import shown_name
from ..system.secrets import hide_secrets
from ..system.words import were
from . import options
from .reporting import emit, note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument(
        "embeddings",
        type=options.store_folder,
        metavar="EMBEDDINGS",
        help="what `embed` wrote: a folder or s3://BUCKET/PREFIX",
    )
    parser.add_argument("--index", required=True, help="a file, or http://HOST:19530 of a Milvus server")
    parser.add_argument(
        "--prune_all",
        action="store_true",
        help="even if this replaces everything in the index, or its images are from another folder",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make or update the index of a folder of embeddings."""
    from ..embedding.store import Store
    from ..search.index import open_index

    index = open_index(args.index)
    changes = index.sync(Store(args.embeddings), args.prune_all)
    index.close()
    counts = f"{changes.added} added, {were(changes.kept)} there, {changes.removed} removed"
    emit(f"{shown_name(hide_secrets(args.index))}: {counts}")
    if changes.unusable:
        note(f"{were(changes.unusable)} left out: some values in the embeddings are not numbers")
    return 1 if changes.unusable else 0
