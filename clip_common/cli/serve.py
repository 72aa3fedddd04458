"""`clip-hub serve`: the Ray Serve app on this machine, or on a cluster that runs already."""

from __future__ import annotations

import argparse
import os
import socket

from pydantic import ValidationError

from ..config import PRETRAINED, pretrained
from ..engines.select import choose
from ..errors import RequestError
from ..server.settings import Settings
from ..system.optional import require_package
from ..weights.locate import find
from ..weights.weights_file import read_whole
from ..zero_shot.thresholds import Thresholds
from . import options

_BACKLOG = 2048
_OF_THE_COMMAND = ("modules", "thresholds", "use_gpu", "threads", "gateways", "engine", "precision")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options; those of `Settings` keep their names."""
    parser.add_argument(
        "modules",
        nargs="+",
        metavar="NAME[=WEIGHTS]",
        help=f"modules to serve, each with a weights file if it is not its own: {', '.join(PRETRAINED)}",
    )
    parser.add_argument(
        "--thresholds",
        action="append",
        metavar="FILE",
        help="a file that `clip-hub evaluate --thresholds` wrote: its labels and thresholds apply to "
        "requests that give none; repeatable, one for each module",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all network interfaces"
    )
    parser.add_argument("--port", type=options.port, default=8866)
    parser.add_argument(
        "--address", help="address of a running Ray cluster, as `ray start` prints it; default: this machine"
    )
    options.add_flag(parser, "--use_gpu", "one GPU for each replica")
    options.add_engine(parser)
    parser.add_argument("--threads", type=options.count, help="CPU threads of each replica; default: all")
    for name, field in Settings.model_fields.items():
        if name not in _OF_THE_COMMAND:
            parser.add_argument(
                f"--{name}", type=type(field.default), default=field.default, help=field.description
            )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, then answer what is under way and stop."""
    try:
        settings = _settings(args)
    except ValidationError as error:
        fault = error.errors()[0]
        named = "" if fault["loc"][0] == "modules" else f"--{fault['loc'][0]} is {fault['input']}: "
        raise RequestError(f"{named}{fault['msg']}") from None
    require_package("ray", "serve")
    listener = _listen(args.host, args.port)
    if not args.address:  # the nodes of a cluster have files of their own
        _check(settings)
    from ..server.run import serve_until_stopped

    return serve_until_stopped(settings, listener, args.address)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, before anything slow begins; who comes early waits.

    Bound alone, it would not keep a second server from the same port.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        return listener
    except (OSError, OverflowError) as error:
        listener.close()
        raise RequestError(
            f"--host {host} --port {port}: cannot listen there ({error}); choose another"
        ) from None


def _check(settings: Settings) -> None:
    """Say what keeps a replica from starting, before any is started.

    Raises:
        ClipError: the engine is not to be had, or weights cannot be had, or do not fit.
    """
    from ..search.finder import INDEX_VARIABLE
    from ..search.index import is_server, refuse_store

    choose(settings.engine, settings.precision)
    if (index := os.environ.get(INDEX_VARIABLE)) and not is_server(index):
        refuse_store(index)
    for file in settings.thresholds:
        if (module := Thresholds.read(file).module) not in settings.modules:
            raise RequestError(f"--thresholds {file}: these thresholds are for {module}, which is not served")
    for name, weights in settings.modules.items():
        found = find(pretrained(name), weights)
        if thresholds := settings.thresholds_of(name):
            thresholds.require_weights(found.identity)
        read_whole(found)


def _settings(args: argparse.Namespace) -> Settings:
    given = {name: value for name, value in vars(args).items() if value is not None}
    chosen = {name: value for name, value in given.items() if name in Settings.model_fields}
    pairs = [item.partition("=") for item in args.modules]
    if blank := next((name for name, mark, weights in pairs if mark and not weights), None):
        raise RequestError(f"{blank}=: the weights after = are blank")
    names = [name for name, _, _ in pairs]
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise RequestError(f"{twice} is given twice: a server runs each module once")
    return Settings(**{**chosen, "modules": {name: weights or None for name, _, weights in pairs}})
