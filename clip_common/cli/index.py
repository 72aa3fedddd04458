"""`clip-hub index`: embeddings into a vector database."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..system.optional import require_package
from .reporting import emit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("vectors", type=Path, metavar="EMBEDDINGS", help="a folder that `embed` wrote")
    parser.add_argument(
        "--index", required=True, help="a file that ends in .db, or http://HOST:19530 of Milvus"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make an index hold what a folder of embeddings holds."""
    require_package("pymilvus", "search")
    from ..embedding.store import Store
    from ..search.index import Index

    index = Index(args.index)
    changes = index.sync(Store(args.vectors))
    index.close()
    emit(f"{args.index}: {changes.added} added, {changes.kept} were there, {changes.removed} removed")
    return 0
