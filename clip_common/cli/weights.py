"""`clip-hub weights`: list, fetch, convert, verify, where."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import PRETRAINED, Pretrained
from ..errors import ClipError, WeightsError
from ..system.file_names import shown_name
from ..weights import locate
from . import options
from .parser import Parser
from .reporting import emit

_BY_HAND = "not known, so it is never downloaded: `fetch` says where it is and where to put it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's actions."""
    actions = parser.add_subparsers(required=True, metavar="ACTION", parser_class=Parser)

    action = actions.add_parser("list", help="the modules, and where their weights are")
    action.set_defaults(run=_list)

    action = actions.add_parser("fetch", help="download a module's weights into the cache")
    action.add_argument("module", type=options.record, metavar="NAME")
    action.add_argument("tag", nargs="?", metavar="TAG", help="which of its published weights, see `list`")
    action.add_argument("--mirror", help="an address in place of the published ones (also CLIP_HUB_MIRROR)")
    action.set_defaults(run=_fetch)

    action = actions.add_parser("convert", help="write any supported file as safetensors")
    action.add_argument("source", type=Path, metavar="SRC")
    action.add_argument("target", type=options.output_file, metavar="DST")
    action.set_defaults(run=_convert)

    action = actions.add_parser("verify", help="load a file strictly and compare with known values")
    action.add_argument("module", type=options.record, metavar="NAME")
    action.add_argument("file", nargs="?", metavar="FILE", help="or a tag; default: the module's own")
    action.add_argument(
        "--image",
        type=Path,
        help="to check the image tower too: CLIP.png of openai/CLIP; for Chinese, examples/pokemon.jpeg of "
        "OFA-Sys/Chinese-CLIP",
    )
    action.set_defaults(run=_verify)

    action = actions.add_parser("where", help="print the file a module would load")
    action.add_argument("module", type=options.record, metavar="NAME")
    action.add_argument("tag", nargs="?", metavar="TAG", help="which of its published weights, see `list`")
    action.set_defaults(run=_where)

    for action in actions.choices.values():
        options.add_quiet(action, argparse.SUPPRESS)  # it may stand before the action too


def _list(_args: argparse.Namespace) -> int:
    for record in PRETRAINED.values():
        emit(f"{record.name}  {record.config.name}, {record.config.image_resolution} pixels")
        for source in record.published:
            accuracy = f"ImageNet {source.imagenet:.1%}" if source.imagenet else ""
            emit(f"    {source.tag:<24}{source.activation:<12}{accuracy:<16}{_place(record, source.tag)}")
            emit(f"    {'':<24}{source.file}  sha256 {source.sha256 or _BY_HAND}  {source.licence}")
    return 0


def _place(record: Pretrained, tag: str) -> str:
    try:
        found = locate.find_local(record, tag)
    except ClipError as error:
        return str(error)
    return str(found.path) if found else "not on this machine"


def _fetch(args: argparse.Namespace) -> int:
    record = args.module if args.tag is None else locate.tagged(args.module, args.tag)
    if record is None:
        tags = ", ".join(source.tag for source in args.module.published)
        raise WeightsError(f"{args.module.name} has no weights {args.tag!r}, only {tags}")
    found = None if args.mirror else locate.find_local(args.module, args.tag)
    emit(str((found or locate.fetch(record, args.mirror)).path))
    return 0


def _convert(args: argparse.Namespace) -> int:
    from ..weights.convert import convert
    from ..weights.schema import identify

    state = convert(args.source, args.target)
    architecture = identify(state) or "an architecture that no module has"
    size = args.target.stat().st_size
    emit(f"{shown_name(str(args.target))}: {len(state)} tensors of {architecture}, {size:,} bytes")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from ..evaluation.reference_values import verify  # Paddle takes seconds to import

    found = locate.require_local(args.module, args.file)
    checks = verify(found, args.image)
    emit(str(found.path))
    for check in checks:
        verdict = {True: "ok", False: "DIFFERS", None: "-"}[check.passed]
        emit(f"  {verdict:<8}{check.what}: {check.found} (expected: {check.expected})")
    return 1 if any(check.passed is False for check in checks) else 0


def _where(args: argparse.Namespace) -> int:
    emit(str(locate.require_local(args.module, args.tag).path))
    return 0
