"""The life of a server: start or join a cluster, deploy, wait for a signal, drain."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

# Ray Serve gives its proxy 15 s to start and then gives up; on a small, busy machine that is too short.
os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")

import ray
from ray import serve
from ray.serve.config import HTTPOptions

from .app import APP, deployments
from .settings import Settings

_NOTICE = 2.0  # seconds in which clients and load balancers learn that they are refused, at least


def serve_until_stopped(settings: Settings, host: str, port: int, address: str | None) -> int:
    """Serve until SIGTERM or SIGINT, then answer what is under way and stop; returns the exit status."""
    _connect(address, settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray has set its own
        signal.signal(number, lambda *_: stop.set())
    serve.start(proxy_location="EveryNode", http_options=HTTPOptions(host=host, port=port))
    serve.run(deployments(settings), name=APP, route_prefix="/")
    print(f"serving {', '.join(settings.modules)} at http://{host}:{port}/docs", flush=True)
    if host not in ("127.0.0.1", "localhost", "::1") and not os.environ.get("CLIP_HUB_API_KEY"):
        print("anybody who reaches this address may ask: set CLIP_HUB_API_KEY", file=sys.stderr)
    stop.wait()
    _drain(settings)
    return 0


def _connect(address: str | None, settings: Settings) -> None:
    """Join a cluster, or start one of this machine's own, reachable from nowhere else."""
    if address:
        # Processes of a cluster do not have this one's environment.
        ours = {name: value for name, value in os.environ.items() if name.startswith("CLIP_HUB_")}
        ray.init(address, runtime_env={"env_vars": ours}, logging_level="warning")
        return
    slots = max(os.cpu_count() or 1, len(settings.modules) * settings.replicas)
    ray.init(
        "local",
        num_cpus=slots,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        logging_level="warning",
    )


def _drain(settings: Settings) -> None:
    """Refuse what is new, wait for what is under way, and stop."""
    print("stopping: answering what is under way", flush=True)
    handle = serve.get_app_handle(APP)
    serve.run(deployments(settings, draining=True), name=APP, route_prefix="/")
    time.sleep(_NOTICE)
    deadline = time.monotonic() + settings.deadline + 5
    while time.monotonic() < deadline and handle.under_way.remote().result():
        time.sleep(0.1)
    serve.shutdown()
    ray.shutdown()
