"""The Ray Serve app: gateways that read requests, and replicas that answer them in batches.

`build` is what a RayService's `import_path` names: `clip_common.server.app:build`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import statistics
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

import gradio
import requests
from fastapi import FastAPI
from PIL import Image
from ray import nodes, serve
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.util.metrics import Counter, Gauge, Histogram

from ..config import pretrained
from ..errors import BusyError, ClipError
from ..predictor import Predictor, PredictorOptions
from ..search.searcher import finder_of
from .admission import Admission, AdmissionMiddleware
from .batching import answer
from .http import create_api
from .limits import Limits
from .request import PredictRequest, RequestBody
from .settings import Settings
from .web_page import create_page

_SECONDS: list[float] = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]
_COUNTS: list[float] = [1, 2, 4, 8, 16, 32, 64, 128]
_PROMISED = 0.7  # of the deadline: a request that would take longer is refused at once
_IMAGES_AT_ONCE = 64  # of a batch; deadlines are looked at in between


class Replica:
    """A process that holds one module. Ready when it has answered once, with the default labels' vectors."""

    def __init__(self, name: str, weights: str | None, settings: Settings) -> None:
        self._settings = settings
        self._predictor = Predictor(
            pretrained(name), weights, engine=settings.engine, precision=settings.precision
        )
        self._predictor.label_embeddings(self._predictor.prompts(None, None), settings.use_gpu)
        self._predictor.classify(images=[_grey_image()], use_gpu=settings.use_gpu)
        self._busy_since: float | None = None
        self._thread = ThreadPoolExecutor(1, "clip-model")  # the model has all CPUs; one batch at a time
        tags = {"module": name}
        self._requests = Histogram("clip_batch_requests", "Requests in a batch", _COUNTS, ("module",))
        self._images = Histogram("clip_batch_pictures", "Images in a batch", _COUNTS, ("module",))
        for metric in (self._requests, self._images):
            metric.set_default_tags(tags)
        batching: Any = self.answer  # the decorator adds these
        batching.set_max_batch_size(settings.batch_requests)
        batching.set_batch_wait_timeout_s(settings.batch_wait)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
    async def answer(self, jobs: list[tuple[PredictRequest, float]]) -> list[Any]:
        """The results of requests, each with the time (of the clock) at which it is given up."""
        self._requests.observe(len(jobs))
        self._images.observe(max(1, sum(len(work.images) for work, _ in jobs)))
        self._busy_since = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, jobs)
        finally:
            self._busy_since = None

    async def check_health(self) -> None:
        """Ray Serve asks every few seconds, and replaces a replica that raises."""
        longest = 3 * self._settings.deadline
        if self._busy_since is not None and time.monotonic() - self._busy_since > longest:
            raise RuntimeError(f"a batch has not ended in {longest:g} s")

    def _answer(self, jobs: list[tuple[PredictRequest, float]]) -> list[Any]:
        results: list[Any] = []
        while len(results) < len(jobs):
            part = _some(jobs[len(results) :])
            due = [deadline > time.time() for _, deadline in part]
            works = [work for (work, _), in_time in zip(part, due, strict=True) if in_time]
            answers = iter(answer(self._predictor, works) if works else ())
            late = BusyError("the request was not answered within its deadline")
            results += [next(answers) if in_time else late for in_time in due]
        return results


class LoadEstimator:
    """How long a module's requests wait, judged by the last ones: latency over how many were under way."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._seconds_each: deque[float] = deque(maxlen=16)

    def expected(self) -> float:
        """Seconds that one more request would take; where none is under way it is always let in."""
        if not self.in_flight or not self._seconds_each:
            return 0.0
        return (self.in_flight + 1) * statistics.median(self._seconds_each)

    @contextlib.contextmanager
    def in_flight_request(self) -> Iterator[None]:
        """While a request is under way; one that fails says nothing about the load."""
        self.in_flight += 1
        among, start = self.in_flight, time.perf_counter()
        try:
            yield
            self._seconds_each.append((time.perf_counter() - start) / among)
        finally:
            self.in_flight -= 1


class Gateway:
    """What reads, checks and counts requests and passes them on: in the command's own process, or as a
    deployment behind Ray Serve's proxies.
    """

    here: ClassVar[Gateway]

    def __init__(self, settings: Settings, **replicas: DeploymentHandle) -> None:
        self._settings = settings
        self._limits = Limits.from_environment()
        self._replicas = replicas
        self._load = {name: LoadEstimator() for name in replicas}
        self.modules = settings.modules
        self._requests = Counter("clip_requests", "Requests answered", ("module", "status"))
        self._seconds = Histogram("clip_request_seconds", "Time to answer", _SECONDS, ("module",))
        self._waiting = Gauge("clip_requests_under_way", "Requests being answered")
        self.admission = Admission(
            os.environ.get("CLIP_HUB_API_KEY") or None,
            settings.body_bytes,
            settings.bytes_in_flight,
            settings.deadline,
        )
        Gateway.here = self

    async def ask(self, module: str, work: PredictRequest) -> Any:
        """See `http.Service`."""
        self._waiting.set(self.admission.in_flight)
        seconds = self._settings.deadline
        load = self._load[module]
        if (expected := load.expected()) > _PROMISED * seconds:
            raise BusyError(f"{load.in_flight} requests wait for {module} already, about {expected:.0f} s")
        if self._settings.use_gpu:
            work = work.on_gpu()
        try:
            job = (work, time.time() + seconds)
            with load.in_flight_request():
                result = await asyncio.wait_for(self._replicas[module].answer.remote(job), seconds)
        except BackPressureError:
            raise BusyError(f"{self._settings.queue} requests wait for {module} already") from None
        except DeploymentUnavailableError:
            raise BusyError(f"{module} is not running") from None
        except (asyncio.TimeoutError, TimeoutError):
            raise BusyError(f"the request was not answered within {seconds:g} s") from None
        if isinstance(result, ClipError):
            raise result
        return result

    async def ask_from_page(self, module: str, body: dict[str, Any]) -> Any:
        """The `results` of a body that the page made; raises as `ask` does."""
        return await self.ask(module, RequestBody.parse(body).work(self._limits))

    async def ready(self) -> str | None:
        """See `http.Service`; the controller knows which replicas run and pass their health checks."""
        if self.admission.draining:
            return "the server is shutting down"
        try:
            status = await asyncio.wait_for(asyncio.to_thread(serve.status), 5)
        except asyncio.TimeoutError:
            return "Ray Serve's controller does not answer"
        deployments: dict[str, Any] = {}
        for application in status.applications.values():
            deployments |= application.deployments
        for module in self.modules:
            if module not in deployments or not deployments[module].replica_states.get("RUNNING"):
                return f"{module} is not running"
        return None

    def observe(self, module: str, status: int, seconds: float) -> None:
        """See `http.Service`."""
        self._requests.inc(tags={"module": module, "status": str(status)})
        self._seconds.observe(seconds, {"module": module})

    def metrics(self) -> str:
        """See `http.Service`: what Ray exports on each node, its own metrics and ours."""
        return "".join(_metrics_of(node) for node in nodes() if node["Alive"])


def gateway_api(gateway: Gateway) -> FastAPI:
    """All that a gateway answers over HTTP: routes, a page for each module, and the guard before them."""
    api = create_api(gateway)
    for module, weights in gateway.modules.items():
        record = pretrained(module)
        ask = partial(gateway.ask_from_page, module)
        page = create_page(record, ask, finder_of(record, PredictorOptions(weights)))
        gradio.mount_gradio_app(api, page, f"/gradio/{module}", show_api=False)
    api.add_middleware(AdmissionMiddleware, admission=gateway.admission)
    return api


def replica(settings: Settings, name: str) -> serve.Application:
    """A module's deployment."""
    actor: dict[str, Any] = {"num_cpus": 1, "num_gpus": 1 if settings.use_gpu else 0}
    if settings.threads:
        actor["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": str(settings.threads)}}
    deployment = serve.deployment(
        name=name,
        num_replicas=settings.replicas,
        max_ongoing_requests=2 * settings.batch_requests,  # the next batch gathers while one is answered
        max_queued_requests=settings.queue,
        ray_actor_options=actor,
        health_check_period_s=5,
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=120,
    )
    return deployment(Replica).bind(name, settings.modules[name], settings)


def build(arguments: dict[str, Any]) -> serve.Application:
    """The whole app behind Ray Serve's own proxies, from a RayService's `args`; see `Settings`."""
    settings = Settings(**arguments)
    gateway = serve.deployment(
        name="Gateway",
        num_replicas=settings.gateways,
        max_ongoing_requests=10_000,  # the guard bounds what it holds
        graceful_shutdown_timeout_s=120,
        ray_actor_options={"num_cpus": 0},
    )
    # Ray Serve asks for the ASGI app after it has made the `Gateway` of this process.
    ingress = serve.ingress(lambda: gateway_api(Gateway.here))
    return gateway(ingress(Gateway)).bind(
        settings, **{name: replica(settings, name) for name in settings.modules}
    )


def _some(jobs: list[tuple[PredictRequest, float]]) -> list[tuple[PredictRequest, float]]:
    """The first jobs, up to so many images, but one at least."""
    images = 0
    for i, (work, _) in enumerate(jobs):
        images += len(work.images)
        if i and images > _IMAGES_AT_ONCE:
            return jobs[:i]
    return jobs


def _grey_image() -> Image.Image:
    return Image.new("RGB", (64, 64), (128, 128, 128))


def _metrics_of(node: dict[str, Any]) -> str:
    """Ours under their own names, Ray Serve's under Ray's; Ray's many others are left to its dashboard."""
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        lines = requests.get(address, timeout=2).text.splitlines(keepends=True)
    except requests.RequestException as error:
        return f"# {address} does not answer: {type(error).__name__}\n"
    wanted = re.compile(r"(# (HELP|TYPE) )?ray_(clip|serve)_")
    return "".join(line.replace("ray_clip_", "clip_", 1) for line in lines if wanted.match(line))
