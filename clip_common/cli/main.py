"""`python -m clip_common`: the modules' weights, packing, serving."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..config import PRETRAINED, Pretrained, pretrained
from ..engines.base import ENGINES, PRECISIONS
from ..engines.compile_cache import kept_folder
from ..engines.select import choose
from ..errors import ClipError, WeightsError
from ..hub.pack import pack
from ..weights import locate
from ..weights.convert import convert
from ..weights.file import WeightsFile
from ..weights.schema import identify
from . import adapt as adaptation
from . import embed as bulk
from . import evaluate as evaluation
from . import serve as server


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (ClipError, OSError) as error:
        print(f"python -m clip_common: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clip_common", description="Tools of the CLIP modules.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    tools = commands.add_parser("weights", help="list, fetch, convert, verify, where")
    actions = tools.add_subparsers(required=True, metavar="ACTION")

    action = actions.add_parser("list", help="the modules, and where their weights are")
    action.set_defaults(run=_list)

    action = actions.add_parser("fetch", help="download a module's weights into the cache")
    action.add_argument("module", type=_record, metavar="NAME")
    action.add_argument("--mirror", help="an address in place of OpenAI's (also CLIP_HUB_MIRROR)")
    action.set_defaults(run=_fetch)

    action = actions.add_parser("convert", help="write any supported file as safetensors")
    action.add_argument("source", type=Path, metavar="SRC")
    action.add_argument("target", type=Path, metavar="DST")
    action.set_defaults(run=_convert)

    action = actions.add_parser("verify", help="load a file strictly and compare with known values")
    action.add_argument("module", type=_record, metavar="NAME")
    action.add_argument("file", nargs="?", metavar="FILE", help="default: the module's own weights")
    action.add_argument("--image", type=Path, help="CLIP.png of openai/CLIP, to check the image tower too")
    action.set_defaults(run=_verify)

    action = actions.add_parser("where", help="print the file a module would load")
    action.add_argument("module", type=_record, metavar="NAME")
    action.set_defaults(run=_where)

    action = commands.add_parser("pack", help="write a module as one archive for `hub install`")
    action.add_argument("module", type=_record, metavar="NAME")
    action.add_argument("--weights", type=Path, help="the file to carry; default: the module's own")
    action.add_argument("--no_weights", action="store_true", help="leave weights out")
    action.add_argument("--name", help="what to call it instead: for weights that `adapt` made")
    action.add_argument("--readme", type=Path, help="its model card, in place of the module's own")
    action.add_argument("--output", type=Path, default=Path("dist"), help="a folder; default: dist")
    action.set_defaults(run=_pack)

    action = commands.add_parser("engine", help="what multiplies the matrices here, and why")
    action.add_argument("module", type=_record, metavar="NAME")
    action.add_argument("--engine", choices=ENGINES, default="auto")
    action.add_argument("--precision", choices=PRECISIONS, default="float32")
    action.set_defaults(run=_engine)

    action = commands.add_parser("embed", help="vectors of many images, as Parquet")
    bulk.add_arguments(action)

    action = commands.add_parser("index", help="put vectors into a vector database")
    bulk.add_index_arguments(action)

    action = commands.add_parser("search", help="find images by words or by an image")
    bulk.add_search_arguments(action)

    action = commands.add_parser("evaluate", help="accuracy on images whose classes are known")
    evaluation.add_arguments(action)

    action = commands.add_parser("adapt", help="adapt a module to images of your own")
    adaptation.add_arguments(action)

    action = commands.add_parser("serve", help="serve modules over HTTP, for real traffic (Ray Serve)")
    server.add_arguments(action)
    return parser


def _record(name: str) -> Pretrained:
    try:
        return pretrained(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _list(_args: argparse.Namespace) -> int:
    for record in PRETRAINED.values():
        source = record.weights
        print(f"{record.name:<14}{record.config.name:<10}{_place(record)}")
        print(f"{'':<24}{source.file}  sha256 {source.sha256}  {source.licence}")
    return 0


def _place(record: Pretrained) -> str:
    try:
        found = locate.find_local(record)
    except ClipError as error:
        return str(error)
    return str(found.path) if found else "not on this machine"


def _on_this_machine(record: Pretrained, file: str | None = None) -> WeightsFile:
    found = locate.find_local(record, file)
    if found is None:
        raise WeightsError(locate.manual_download_hint(record))
    return found


def _fetch(args: argparse.Namespace) -> int:
    found = None if args.mirror else locate.find_local(args.module)
    print((found or locate.fetch(args.module, args.mirror)).path)
    return 0


def _convert(args: argparse.Namespace) -> int:
    state = convert(args.source, args.target)
    architecture = identify(state) or "an architecture that no module has"
    print(f"{args.target}: {len(state)} tensors of {architecture}, {args.target.stat().st_size:,} bytes")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from ..evaluation.reference_values import verify  # Paddle takes seconds to import

    found = _on_this_machine(args.module, args.file)
    checks = verify(args.module, found, args.image)
    print(found.path)
    for check in checks:
        verdict = {True: "ok", False: "DIFFERS", None: "-"}[check.passed]
        print(f"  {verdict:<8}{check.what}: {check.found} (expected: {check.expected})")
    return 1 if any(check.passed is False for check in checks) else 0


def _pack(args: argparse.Namespace) -> int:
    archive = pack(args.module, args.output, args.weights, not args.no_weights, args.name, args.readme)
    print(f"{archive}: {archive.stat().st_size:,} bytes")
    if "-" in str(home := locate.hub_home()):
        print(
            f"`hub install` fails in {home}: PaddleHub writes `_` for each `-` of that path. "
            "Set HUB_HOME to a folder without `-` in its path",
            file=sys.stderr,
        )
    return 0


def _engine(args: argparse.Namespace) -> int:
    name, precision, why = choose(args.engine, args.precision)
    print(f"{name}, {precision}: {why}")
    found = _on_this_machine(args.module)
    if name != "paddle":
        folder = kept_folder(args.module, found, name, precision)
        print(f"compiled: {folder}" if folder else "not compiled yet: the first call does that")
    return 0


def _where(args: argparse.Namespace) -> int:
    print(_on_this_machine(args.module).path)
    return 0
