"""The Ray Serve app: gateways that read requests, and replicas that answer them in batches.

`build` is what a RayService's `import_path` names: `clip_common.server.app:build`.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
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
from ..gather import answer
from ..labels import prompts_for
from ..limits import Limits
from ..page import create_page
from ..predictor import Predictor
from ..request import Body, Work
from .guard import Admission, Guard
from .http import create_api
from .settings import Settings

APP = "clip"
_SECONDS: list[float] = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]
_COUNTS: list[float] = [1, 2, 4, 8, 16, 32, 64, 128]
_PICTURES_AT_ONCE = 64  # of a batch; deadlines are looked at in between


class Replica:
    """A process that holds one module. Ready when it has answered once, with the default labels' vectors."""

    def __init__(self, name: str, weights: str | None, settings: Settings) -> None:
        self._settings = settings
        self._predictor = Predictor(pretrained(name), weights, engine=settings.engine)
        self._predictor.label_vectors(prompts_for(self._predictor.record, None, None), settings.use_gpu)
        self._predictor.classify(images=[_grey_picture()], use_gpu=settings.use_gpu)
        self._busy_since: float | None = None
        self._thread = ThreadPoolExecutor(
            1, "clip-model"
        )  # the model has all processors; one batch at a time
        tags = {"module": name}
        self._requests = Histogram("clip_batch_requests", "Requests in a batch", _COUNTS, ("module",))
        self._pictures = Histogram("clip_batch_pictures", "Pictures in a batch", _COUNTS, ("module",))
        for metric in (self._requests, self._pictures):
            metric.set_default_tags(tags)
        batching: Any = self.answer  # the decorator adds these
        batching.set_max_batch_size(settings.batch_requests)
        batching.set_batch_wait_timeout_s(settings.batch_wait)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
    async def answer(self, jobs: list[tuple[Work, float]]) -> list[Any]:
        """The results of requests, each with the time (of the clock) at which it is given up."""
        self._requests.observe(len(jobs))
        self._pictures.observe(max(1, sum(len(work.pictures) for work, _ in jobs)))
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

    def _answer(self, jobs: list[tuple[Work, float]]) -> list[Any]:
        results: list[Any] = []
        while len(results) < len(jobs):
            part = _some(jobs[len(results) :])
            due = [deadline > time.time() for _, deadline in part]
            works = [work for (work, _), in_time in zip(part, due, strict=True) if in_time]
            answers = iter(answer(self._predictor, works) if works else ())
            late = BusyError("the request was not answered within its deadline")
            results += [next(answers) if in_time else late for in_time in due]
        return results


class Gateway:
    """A process that reads, checks and counts requests, and passes them on."""

    here: ClassVar[Gateway]

    def __init__(self, settings: Settings, **replicas: DeploymentHandle) -> None:
        self._settings = settings
        self._replicas = replicas
        self.modules = tuple(replicas)
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

    async def reconfigure(self, config: dict[str, bool]) -> None:
        """Ray Serve gives the deployment's `user_config`: {"draining": true} refuses new requests."""
        self.admission.draining = config["draining"]

    async def under_way(self) -> int:
        """Requests that have no answer yet."""
        return self.admission.under_way

    async def ask(self, module: str, work: Work) -> Any:
        """See `http.Service`."""
        self._waiting.set(self.admission.under_way)
        seconds = self._settings.deadline
        if self._settings.use_gpu:
            work = work.on_gpu()
        try:
            job = (work, time.time() + seconds)
            return await asyncio.wait_for(self._replicas[module].answer.remote(job), seconds)
        except BackPressureError:
            raise BusyError(f"{self._settings.queue} requests wait for {module} already") from None
        except DeploymentUnavailableError:
            raise BusyError(f"{module} is not running") from None
        except (asyncio.TimeoutError, TimeoutError):
            raise BusyError(f"the request was not answered within {seconds:g} s") from None

    async def ask_from_page(self, module: str, body: dict[str, Any]) -> Any:
        """The `results` of a body that the page made; raises the `ClipError` that a request would get."""
        result = await self.ask(module, Body.parse(body).work(Limits.from_environment()))
        if isinstance(result, ClipError):
            raise result
        return result

    async def ready(self) -> str | None:
        """See `http.Service`; the controller knows which replicas run and pass their health checks."""
        if self.admission.draining:
            return "the server is shutting down"
        try:
            status = await asyncio.wait_for(asyncio.to_thread(serve.status), 5)
            deployments = status.applications[APP].deployments
        except (asyncio.TimeoutError, KeyError):
            return "Ray Serve's controller does not answer"
        for module in self.modules:
            if not deployments[module].replica_states.get("RUNNING"):
                return f"{module} is not running"
        return None

    def observe(self, module: str, status: int, seconds: float) -> None:
        """See `http.Service`."""
        self._requests.inc(tags={"module": module, "status": str(status)})
        self._seconds.observe(seconds, {"module": module})

    def metrics(self) -> str:
        """See `http.Service`: what Ray exports on each node, its own metrics and ours."""
        return "".join(_metrics_of(node) for node in nodes() if node["Alive"])


def _gateway_api() -> FastAPI:
    """Ray Serve asks for the ASGI app after it has made the `Gateway` of this process."""
    api = create_api(Gateway.here)
    for module in Gateway.here.modules:
        page = create_page(pretrained(module), partial(Gateway.here.ask_from_page, module))
        gradio.mount_gradio_app(api, page, f"/gradio/{module}", show_api=False)
    api.add_middleware(Guard, admission=Gateway.here.admission)
    return api


def build(arguments: dict[str, Any]) -> serve.Application:
    """The app, from a RayService's `args`; see `Settings`."""
    return deployments(Settings(**arguments))


def deployments(settings: Settings, draining: bool = False) -> serve.Application:
    """The app of some settings; `draining` refuses what is new, without a restart of anything."""
    deployment = serve.deployment(
        version="1", health_check_period_s=5, health_check_timeout_s=60, graceful_shutdown_timeout_s=120
    )
    actor: dict[str, Any] = {"num_cpus": 1, "num_gpus": 1 if settings.use_gpu else 0}
    if settings.threads:
        actor["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": str(settings.threads)}}
    replica = deployment(Replica).options(
        num_replicas=settings.replicas,
        max_ongoing_requests=2 * settings.batch_requests,  # the next batch gathers while one is answered
        max_queued_requests=settings.queue,
        ray_actor_options=actor,
    )
    gateway = deployment(serve.ingress(_gateway_api)(Gateway)).options(
        name="Gateway",
        num_replicas=settings.gateways,
        max_ongoing_requests=10_000,  # the guard bounds what it holds
        ray_actor_options={"num_cpus": 0},
        user_config={"draining": draining},
    )
    replicas = {
        name: replica.options(name=name).bind(name, weights, settings)
        for name, weights in settings.modules.items()
    }
    return gateway.bind(settings, **replicas)


def _some(jobs: list[tuple[Work, float]]) -> list[tuple[Work, float]]:
    """The first jobs, up to so many pictures, but one at least."""
    pictures = 0
    for i, (work, _) in enumerate(jobs):
        pictures += len(work.pictures)
        if i and pictures > _PICTURES_AT_ONCE:
            return jobs[:i]
    return jobs


def _grey_picture() -> Image.Image:
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
