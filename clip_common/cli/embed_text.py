"""`clip-hub embed-text`: the embeddings of a few texts, printed."""

from __future__ import annotations

import argparse

from . import options
from .prediction import Embedding, perform
from .reporting import emit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    parser.add_argument("texts", type=options.text, nargs="+", metavar="TEXT")
    options.add_module(parser)
    options.add_format(parser)
    options.add_weights(parser)
    options.add_engine(parser)
    options.add_use_gpu(parser)
    options.add_batch_size(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the embeddings, in the texts' order."""
    task = Embedding(texts=args.texts, batch_size=args.batch_size, use_gpu=args.use_gpu)
    emit(perform(options.predictor_options(args).predictor(args.module), task).rendered(args.format))
    return 0
