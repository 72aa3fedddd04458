"""The lifecycle of a server: start or join a cluster, deploy, listen, wait for a signal, drain."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from functools import partial

# One event loop per process instead of three: 10 % more requests per second, measured.
os.environ.setdefault("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
# By default Ray runs workers at low priority: any other process on the machine would slow down the server.
os.environ.setdefault("RAY_worker_niceness", "0")
# Intervals of the controller's loop, and of metrics for the dashboard, which is off. With Ray's defaults of
# 0.1 s and 5 s, both take 6 % of a CPU; with these, 3 %.
os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.5")
os.environ.setdefault("REPORTER_UPDATE_INTERVAL_MS", "60000")

import ray
import uvicorn
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from ..errors import RequestError
from ..system.ray_job import RayJob
from ..system.threads import ends_within
from .app import Gateway, gateway_api, replica
from .settings import Settings
from .timeouts import TimeoutProtocol

_ENDING = 5.0  # seconds for responses that are being sent, and for ending endless ones
_AWAKE = 0.5  # seconds until a signal is noticed that another thread received, or that came before the wait
_NOTICE = 2.0  # minimum seconds of rejecting requests, in which load balancers notice the shutdown


def serve_until_stopped(settings: Settings, listener: socket.socket, address: str | None) -> int:
    """Serve until SIGTERM or SIGINT, then finish the running requests and stop.

    Requests are parsed, checked and rejected in this process, which costs a millisecond. Ray Serve's proxy
    would take ten times as long, and reject requests late under overload.

    Args:
        settings: settings of the app.
        listener: the listening socket.
        address: address of a Ray cluster; None starts one on this machine.

    Returns:
        The exit status: 1 if the HTTP server ended by itself, else 0.
    """
    _connect(address, settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray has set its own
        signal.signal(number, partial(_on_signal, stop))
    gateway = Gateway(settings, **_replicas(settings))
    server, serving = _start_http(gateway_api(gateway), listener)
    host, port = listener.getsockname()[:2]
    _say(f"serving {', '.join(settings.modules)} at http://{host}:{port}/docs")
    for module in settings.modules:
        _say(f"web page of {module}: http://{host}:{port}/gradio/{module}")
    if host not in ("127.0.0.1", "::1") and not gateway.admission.api_key:
        print("anybody who can reach this address can send requests: set CLIP_HUB_API_KEY", file=sys.stderr)
    while serving.is_alive() and not stop.wait(_AWAKE):
        pass
    failed = not serving.is_alive()
    if failed:  # uvicorn has written the reason to standard error
        _say("stopping: nothing listens any more")
    else:
        _drain(gateway, settings.deadline)
    # Ray Serve's handles need the server's event loop, so the server stops afterwards. The time limit is for
    # a replica that died and is restarting: Ray would wait half a minute for it.
    ends_within(_ENDING, serve.shutdown)
    gateway.admission.end_the_endless()
    server.should_exit = True
    serving.join(2 * _ENDING)
    ray.shutdown()
    return 1 if failed else 0


def _start_http(api: FastAPI, listener: socket.socket) -> tuple[uvicorn.Server, threading.Thread]:
    """Run the HTTP server in a thread."""
    config = uvicorn.Config(
        api,
        http=TimeoutProtocol,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(_ENDING),
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="clip-http", daemon=True
    )
    thread.start()
    return server, thread


def _say(text: str) -> None:
    """Print a line; a closed standard output must not stop the server."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def _on_signal(stop: threading.Event, number: int, _frame: object) -> None:
    """The first signal stops the server gracefully, a second one at once."""
    if not stop.is_set():
        stop.set()
        return
    with contextlib.suppress(OSError, AttributeError):  # standard output may be closed
        os.write(sys.stdout.fileno(), b"stopping at once\n")  # print is not reentrant
    signal.signal(number, signal.SIG_DFL)  # in case that Ray hangs
    try:
        ends_within(_ENDING, ray.shutdown)  # ends the processes that it has started
    finally:
        os._exit(128 + number)


def _replicas(settings: Settings) -> dict[str, DeploymentHandle]:
    """Start the replicas of all modules.

    Raises:
        RequestError: a replica does not start; the message says why.
    """
    serve.start(proxy_location="Disabled")
    try:
        return {
            name: serve.run(replica(settings, name), name=f"clip-{name}", route_prefix=None)
            for name in settings.modules
        }
    except RuntimeError as error:  # Ray's, with the replica's traceback in it
        reasons = re.findall(r"^\S*(?:Error|Exception): .*", str(error), re.MULTILINE)
        serve.shutdown()
        ray.shutdown()
        raise RequestError(f"a module failed to start: {reasons[-1] if reasons else error}") from None


def _connect(address: str | None, settings: Settings) -> None:
    """Join a cluster, or start one on this machine that is not reachable from others."""
    if address:
        # Processes of a cluster do not inherit this environment.
        ours = {name: value for name, value in os.environ.items() if name.startswith("CLIP_HUB_")}
        ray.init(address, job_config=RayJob(), runtime_env={"env_vars": ours}, logging_level="warning")
        return
    slots = max(os.cpu_count() or 1, len(settings.modules) * settings.replicas)
    ray.init(
        "local",
        job_config=RayJob(),
        num_cpus=slots,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        logging_level="warning",
    )


def _drain(gateway: Gateway, deadline: float) -> None:
    """Reject new requests, and wait for the running ones."""
    _say("stopping: finishing the requests in flight")
    gateway.admission.draining = True
    time.sleep(_NOTICE)
    gateway.admission.refuse_the_unread()  # else a client that never finishes its body would delay the end
    end = time.monotonic() + deadline + 5
    while time.monotonic() < end and (gateway.admission.in_flight or gateway.asking):
        time.sleep(0.1)
