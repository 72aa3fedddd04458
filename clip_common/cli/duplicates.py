"""`clip-hub duplicates`: images that are nearly the same, in groups."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..system.progress import progress_bar
from ..system.words import counted
from . import options
from .reporting import emit, note, report_left_out

if TYPE_CHECKING:
    from ..search.duplicates import Group

_LARGE = 200_000  # images, from which the time it takes is said


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    options.add_stores(parser)
    parser.add_argument(
        "--threshold",
        type=options.cosine,
        default=0.95,
        metavar="COSINE",
        help="least cosine of a duplicate and the image that is kept; default: 0.95",
    )
    options.add_format(parser)
    parser.add_argument(
        "--output_dir", type=options.output_folder, help="also write a contact sheet, duplicates.png, here"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Find groups and print them; the exit status is 1 if an image could not be compared."""
    from ..search.duplicates import as_json, as_table, estimated_seconds, find_groups, pairs_of
    from ..search.stored_images import read_images

    stored = read_images(args.embeddings)
    pairs = pairs_of(len(stored))
    if len(stored) >= _LARGE:
        minutes = counted(round(estimated_seconds(stored) / 60), "minute")
        note(f"{len(stored)} images are {pairs} pairs: about {minutes} on this machine")
    with progress_bar(total=pairs, desc="pairs", unit="", unit_scale=True, delay=2) as bar:
        groups = find_groups(stored, args.threshold, bar.update)
    emit(as_json(stored, groups, args.threshold) if args.format == "json" else as_table(stored, groups))
    if args.output_dir:
        path = args.output_dir / "duplicates.png"
        _write_sheet(groups, args.threshold, path)
        note(str(path))
    return report_left_out(stored)


def _write_sheet(groups: list[Group], threshold: float, path: Path) -> None:
    """The first groups, each in a row: the image to keep and its nearest duplicates."""
    from ..search.contact_sheet import write_rows

    rows = [
        [
            (group.keep, f"keep  {Path(group.keep.path).name}"),
            *((one.image, f"{one.cosine:.3f}  {Path(one.image.path).name}") for one in group.duplicates),
        ]
        for group in groups
    ]
    write_rows(rows, f"{counted(len(groups), 'group')} from a cosine of {threshold}", path)
