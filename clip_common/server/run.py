"""The life of a server: start or join a cluster, deploy, listen, wait for a signal, drain."""

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

# One loop in each of its processes rather than three: a tenth more requests a second, measured.
os.environ.setdefault("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
# Ray runs its workers at low priority, so that any other process on the machine slows the server down.
os.environ.setdefault("RAY_worker_niceness", "0")
# How often its controller looks around, and its agent measures the machine for a dashboard that is off: at
# Ray's own 0.1 s and 5 s both take 6 % of a CPU for nothing, at these 3 %.
os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.5")
os.environ.setdefault("REPORTER_UPDATE_INTERVAL_MS", "60000")

import ray
import uvicorn
from ray import serve
from ray.serve.handle import DeploymentHandle

from ..errors import RequestError
from ..system.ray_job import RayJob
from ..system.threads import within
from .app import Gateway, gateway_api, replica
from .settings import Settings
from .timeouts import TimeoutProtocol

_ENDING = 5.0  # seconds for answers that are on their way, and for a page's events, which have no end
_AWAKE = 0.5  # seconds after which a signal is noticed that came to another thread, or just before the wait
_NOTICE = 2.0  # seconds in which clients and load balancers learn that they are refused, at least


def serve_until_stopped(settings: Settings, listener: socket.socket, address: str | None) -> int:
    """Serve until SIGTERM or SIGINT, then answer what is under way and stop; returns the exit status, which
    is 1 where the listener ended by itself.

    Requests are read, checked and refused in this process, which costs a millisecond; through Ray Serve's own
    proxy it costs ten times that, and refusals come late when there is most to refuse.

    Args:
        settings: the app's.
        listener: the socket to listen at.
        address: a Ray cluster's; None starts one on this machine.
    """
    _connect(address, settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray has set its own
        signal.signal(number, partial(_on_signal, stop))
    gateway = Gateway(settings, **_replicas(settings))
    api = gateway_api(gateway)
    config = uvicorn.Config(
        api,
        http=TimeoutProtocol,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(_ENDING),
    )
    server = uvicorn.Server(config)
    serving = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="clip-http", daemon=True
    )
    serving.start()
    host, port = listener.getsockname()[:2]
    _say(f"serving {', '.join(settings.modules)} at http://{host}:{port}/docs")
    if host not in ("127.0.0.1", "::1") and not gateway.admission.api_key:
        print("anybody who reaches this address may ask: set CLIP_HUB_API_KEY", file=sys.stderr)
    while serving.is_alive() and not stop.wait(_AWAKE):
        pass
    failed = not serving.is_alive()
    if failed:  # the standard error says why
        _say("stopping: nothing listens any more")
    else:
        _drain(gateway, settings.deadline)
    # Its handles live in the listener's event loop. Ray would wait half a minute for a replica that died and
    # is starting again; by now nobody waits for an answer.
    within(_ENDING, serve.shutdown)
    gateway.admission.end_the_endless()
    server.should_exit = True
    serving.join(2 * _ENDING)
    ray.shutdown()
    return 1 if failed else 0


def _say(text: str) -> None:
    """Print a line, if there is anybody to read it: requests are answered all the same."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def _on_signal(stop: threading.Event, number: int, _frame: object) -> None:
    """The first signal stops the server once everybody has an answer, the second at once."""
    if not stop.is_set():
        stop.set()
        return
    with contextlib.suppress(OSError, AttributeError):  # it is closed
        os.write(sys.stdout.fileno(), b"stopping at once\n")  # a print could be in the middle of another
    signal.signal(number, signal.SIG_DFL)  # should Ray not end
    try:
        ray.shutdown()  # with all that it has started
    finally:
        os._exit(128 + number)


def _replicas(settings: Settings) -> dict[str, DeploymentHandle]:
    """Start all modules' replicas.

    Raises:
        RequestError: one does not start; the message says why.
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
        raise RequestError(f"a module does not start: {reasons[-1] if reasons else error}") from None


def _connect(address: str | None, settings: Settings) -> None:
    """Join a cluster, or start one of this machine's own, reachable from nowhere else."""
    if address:
        # Processes of a cluster do not have this one's environment.
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
    """Refuse what is new, and wait for what is under way."""
    _say("stopping: answering what is under way")
    gateway.admission.draining = True
    time.sleep(_NOTICE)
    gateway.admission.refuse_the_unread()  # a client that stops in the middle of its body would be waited for
    end = time.monotonic() + deadline + 5
    while time.monotonic() < end and (gateway.admission.in_flight or gateway.asking):
        time.sleep(0.1)
