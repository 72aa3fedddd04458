"""`python -m benchmarks.load CHECK --url URL`: load tests of a server. Prints one line of JSON.

answers    clients with different requests, classify and embed: each answer equals that of a single request
rate       images per second, compared with the same images in one process without a server
overload   ten times more requests than it can serve: how it refuses them, and how soon it recovers
memory     20,000 requests of mixed sizes: resident memory of the server's processes over time
hostile    damaged images, bombs, wrong fields, large and deep bodies; then a normal request
"""

from __future__ import annotations

import argparse
import json
import sys
from urllib.parse import urlsplit

from . import checks
from .client import Client

CHECKS = {
    "answers": checks.answers,
    "rate": checks.rate,
    "overload": checks.overload,
    "memory": checks.memory,
    "hostile": checks.hostile,
}


def main() -> int:
    """Run one check; the exit status is 1 if a figure misses its target."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--url", default="http://127.0.0.1:8866", help="a server on this machine")
    parser.add_argument("--module", default="clip_mini", help="the module that is asked")
    parser.add_argument("--weights", help="its weights file, where answers are compared")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long, where that is free")
    parser.add_argument("--requests", type=int, default=20_000, help="how many, where that is free")
    parser.add_argument(
        "--allow_500", action="store_true", help="for PaddleHub's server, which parses JSON before our code"
    )
    arguments = parser.parse_args()
    if urlsplit(arguments.url).hostname not in ("127.0.0.1", "localhost", "::1"):
        parser.error("only a server on this machine may be loaded")
    client = Client(arguments.url, arguments.module)
    figures = CHECKS[arguments.check](client, arguments)
    print(json.dumps({"check": arguments.check, "module": arguments.module, **figures}))
    return 0 if figures["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
