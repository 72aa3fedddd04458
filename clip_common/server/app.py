"""The Ray Serve app: gateways that parse requests, and replicas that answer them in batches.

For a RayService, `import_path` is `clip_common.server.app:build`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

import requests
from fastapi import FastAPI
from PIL import Image
from ray import nodes, serve
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ServeStatus
from ray.util.metrics import Counter, Gauge, Histogram

from ..config import pretrained
from ..errors import BusyError, ClipError, RequestError
from ..predictor import Predictor, PredictorOptions
from ..preprocessing.resize import compiled
from ..search.finder import finder_of
from ..system import threads
from ..system.threads import run_in_thread
from ..zero_shot.explain import COPIES
from ..zero_shot.label_embeddings import TEXTS_AT_ONCE
from .admission import Admission, AdmissionMiddleware, api_key_from_environment
from .answering import Job, add_heat_maps, answer_jobs, checked, encode_ahead, readable
from .http import create_api
from .limits import Limits
from .request import FEW_TEXTS, PredictRequest, RequestBody
from .responses import off_the_loop
from .scheduling import TURN, Batcher, LoadEstimator, Places, Turns, late
from .settings import Settings
from .web_page import create_page, mount_page

_SECONDS: list[float] = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]
_COUNTS: list[float] = [1, 2, 4, 8, 16, 32, 64, 128]
_PROMISED = 0.7  # share of the deadline; a request that would probably take longer is refused at once
_AT_ONCE = {"texts": 4, "images": 16}  # requests of a kind, so that one client cannot fill the queue
_PREPARED = {"small": 256, "images": 128}  # limit for images held as pixels, for requests of a kind
_MUCH = {"texts": "many texts", "images": "many images", "explain": "heat maps to make"}
_STATUS_SECONDS = 5.0  # for Ray Serve's controller to say what runs
_TEXTS_AT_LEAST, _COPIES_AT_LEAST = 16, 2


class Replica:
    """A process that runs one module; ready once it has embedded the default labels and run a test image."""

    def __init__(self, name: str, weights: str | None, settings: Settings) -> None:
        self._settings = settings
        self._predictor = Predictor(
            pretrained(name), weights, engine=settings.engine, precision=settings.precision
        )
        compiled.load()
        self._thresholds = settings.thresholds_of(name)
        prompts, _ = self._predictor.labels.prompts_and_scoring(None, None, None, self._thresholds)
        self._predictor.labels.targets(prompts, settings.use_gpu)
        self._predictor.classify(images=[_grey_image()], use_gpu=settings.use_gpu)
        self._busy_since: float | None = None
        self._model = ThreadPoolExecutor(1, "clip-model")  # the model has all CPUs; one batch at a time
        self._workers = ThreadPoolExecutor(threads.count(), "clip-prepare")
        self._long = ThreadPoolExecutor(_AT_ONCE["texts"] + 1, "clip-long")  # they mostly wait for the model
        self._explaining = asyncio.Lock()  # one explanation at a time leaves half of the model to others
        self._places = {kind: Places(count) for kind, count in _PREPARED.items()}
        tags = {"module": name}
        self._requests = Histogram("clip_batch_requests", "Requests in a batch", _COUNTS, ("module",))
        self._images = Histogram("clip_batch_pictures", "Images in a batch", _COUNTS, ("module",))
        for metric in (self._requests, self._images):
            metric.set_default_tags(tags)
        self._batches = Batcher(self._batch, settings.batch_requests, settings.batch_wait)

    async def answer(self, work: PredictRequest, deadline: float) -> Any:
        """Return the results of a request, or its `ClipError`.

        Long work is done outside the batches, in slices, so that other requests can run in between: decoding
        images, encoding many texts, and encoding the masked copies of an image to explain.

        Args:
            work: the request.
            deadline: time (`time.time()`) after which the request is given up.
        """
        loop = asyncio.get_running_loop()
        work = work.with_default(self._thresholds)
        try:
            job = await loop.run_in_executor(self._workers, checked, self._predictor, work)
            if not work.explain:
                return await self._answer(job, deadline)
            async with self._explaining:
                return await self._explain(job, await self._answer(job, deadline), deadline)
        except ClipError as error:
            return error

    async def _answer(self, job: Job, deadline: float) -> Any:
        loop = asyncio.get_running_loop()
        work = job.work
        if job.texts_to_encode > FEW_TEXTS:
            encode = partial(self._predictor.text_features, use_gpu=work.use_gpu)
            with Turns(self._model, encode, _TEXTS_AT_LEAST, TEXTS_AT_ONCE, deadline) as turns:
                await loop.run_in_executor(self._long, encode_ahead, self._predictor, job, turns)
        kind = "images" if work.kind == "images" else "small"
        async with self._places[kind].taken(len(work.images)):
            await self._prepare(job, deadline)
            return await self._batches.ask((job, deadline))

    async def _batch(self, jobs: list[tuple[Job, float]]) -> list[Any]:
        """Return the results of prepared requests, given with their deadlines."""
        self._requests.observe(len(jobs))
        self._images.observe(max(1, sum(len(job.pixels) for job, _ in jobs)))
        self._busy_since = time.monotonic()

        def fault_of(place: int) -> ClipError | None:
            return late() if jobs[place][1] < time.time() else None

        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._model, answer_jobs, self._predictor, [job for job, _ in jobs], fault_of
            )
        finally:
            self._busy_since = None

    async def check_health(self) -> None:
        """Ray Serve calls this every few seconds, and replaces a replica for which it raises."""
        longest = 3 * self._settings.deadline
        if self._busy_since is not None and time.monotonic() - self._busy_since > longest:
            raise RuntimeError(f"a batch has not ended in {longest:g} s")

    async def _prepare(self, job: Job, deadline: float) -> None:
        """Decode and preprocess the images of a request, one in each thread."""
        loop = asyncio.get_running_loop()
        coming: deque[asyncio.Future] = deque()
        try:
            for image in job.work.images:
                if len(coming) == threads.count():
                    job.pixels.append(readable(await coming.popleft()))
                if deadline < time.time():
                    raise late()
                coming.append(loop.run_in_executor(self._workers, self._predictor.prepare, image))
            while coming:
                job.pixels.append(readable(await coming.popleft()))
        finally:
            for future in coming:
                future.cancel()

    async def _explain(self, job: Job, results: Any, deadline: float) -> Any:
        """Add heat maps to the results. The work ends even if the client has disconnected."""
        if isinstance(results, ClipError):
            return results
        encode = partial(self._predictor.encode_image, use_gpu=job.work.use_gpu)
        with Turns(self._model, encode, _COPIES_AT_LEAST, COPIES, deadline, COPIES) as turns:
            return await asyncio.get_running_loop().run_in_executor(
                self._long, add_heat_maps, self._predictor, job, results, turns
            )


class Gateway:
    """Checks and counts requests and forwards them to replicas.

    It runs in the process of the command, or as a deployment behind Ray Serve's proxies.
    """

    here: ClassVar[Gateway]

    def __init__(self, settings: Settings, **replicas: DeploymentHandle) -> None:
        self._settings = settings
        self._limits = Limits.from_environment()
        self._replicas = replicas
        self._load = {name: {kind: LoadEstimator() for kind in ("small", *_MUCH)} for name in replicas}
        self._at_once = _AT_ONCE | {"explain": settings.explanations}
        self.modules = settings.modules
        self._requests = Counter("clip_requests", "Requests answered", ("module", "status"))
        self._seconds = Histogram("clip_request_seconds", "Time to answer", _SECONDS, ("module",))
        self._waiting = Gauge("clip_requests_under_way", "Requests being answered")
        self.admission = Admission(
            api_key_from_environment(),
            settings.body_bytes,
            settings.bytes_in_flight,
            settings.deadline,
        )
        self._coming: Future[ServeStatus] | None = None
        Gateway.here = self

    async def ask(self, module: str, work: PredictRequest) -> Any:
        """See `Service`."""
        self._waiting.set(self.admission.in_flight)
        seconds = self._settings.deadline
        load = self._load[module][work.kind]
        if work.explain and not self.explains:
            raise RequestError("field 'explain': this server makes no heat maps (its --explanations is 0)")
        if work.kind in self._at_once and load.in_flight >= self._at_once[work.kind]:
            raise BusyError(
                f"{load.in_flight} requests with {_MUCH[work.kind]} are already waiting for {module}"
            )
        if (expected := load.expected()) > _PROMISED * seconds:
            raise BusyError(
                f"{load.in_flight} requests are already waiting for {module}, about {expected:.0f} s"
            )
        if self._settings.use_gpu:
            work = work.on_gpu()
        try:
            with load.in_flight_request(self._aside(module, work)):
                response = self._replicas[module].answer.remote(work, time.time() + seconds)
                try:
                    result = await asyncio.wait_for(response, seconds)
                except asyncio.CancelledError:  # the replica must be cancelled explicitly
                    response.cancel()
                    raise
        except BackPressureError:
            raise BusyError(f"{self._settings.queue} requests are already waiting for {module}") from None
        except DeploymentUnavailableError:
            raise BusyError(f"{module} is not running") from None
        except (asyncio.TimeoutError, TimeoutError):
            raise BusyError(f"the request was not answered within {seconds:g} s") from None
        if isinstance(result, ClipError):
            raise result
        return result

    def _aside(self, module: str, work: PredictRequest) -> float:
        """Seconds that a request may wait for one slice of other requests' long computations."""
        others = [kind for kind in ("texts", "explain") if kind != work.kind]
        return TURN if any(self._load[module][kind].in_flight for kind in others) else 0.0

    async def ask_from_page(self, module: str, body: dict[str, Any]) -> Any:
        """Answer the body of a request from the web page; raises as `ask` does."""
        return await self.ask(module, await off_the_loop(lambda: RequestBody.parse(body).work(self._limits)))

    @property
    def explains(self) -> bool:
        """Whether requests for heat maps are accepted."""
        return self._settings.explanations > 0

    @property
    def asking(self) -> int:
        """Number of requests that replicas have not answered yet, including those from web pages."""
        return sum(load.in_flight for loads in self._load.values() for load in loads.values())

    async def ready(self) -> str | None:
        """See `Service`; the controller knows which replicas run and pass their health checks."""
        if self.admission.draining:
            return "the server is shutting down"
        try:
            status = await asyncio.wait_for(self._status(), _STATUS_SECONDS)
        except asyncio.TimeoutError:
            return "Ray Serve's controller does not answer"
        deployments: dict[str, Any] = {}
        for application in status.applications.values():
            deployments |= application.deployments
        for module in self.modules:
            if module not in deployments or not deployments[module].replica_states.get("RUNNING"):
                return f"{module} is not running"
        return None

    def _status(self) -> asyncio.Future:
        """Ask Ray Serve's controller for its status, with one request at a time.

        It runs in a thread that does not keep the process alive, in case the controller never answers.
        """
        if self._coming is None or self._coming.done():
            self._coming = run_in_thread(serve.status)
        return asyncio.wrap_future(self._coming)

    def observe(self, module: str, status: int, seconds: float) -> None:
        """See `Service`."""
        self._requests.inc(tags={"module": module, "status": str(status)})
        self._seconds.observe(seconds, {"module": module})

    def metrics(self) -> str:
        """See `Service`: what Ray exports on each node, its own metrics and ours."""
        return "".join(_metrics_of(node) for node in nodes() if node["Alive"])


def gateway_api(gateway: Gateway) -> FastAPI:
    """The complete app of a gateway: routes, a web page for each module, and the admission middleware."""
    api = create_api(gateway)
    for module, weights in gateway.modules.items():
        record = pretrained(module)
        ask = partial(gateway.ask_from_page, module)
        find = finder_of(record, PredictorOptions(weights))
        page = create_page(record, ask, find, gateway.explains)
        mount_page(api, page, f"/gradio/{module}")
    api.add_middleware(AdmissionMiddleware, admission=gateway.admission)
    return api


def replica(settings: Settings, name: str) -> serve.Application:
    """The Ray Serve deployment of a module's replicas."""
    actor: dict[str, Any] = {"num_cpus": 1, "num_gpus": 1 if settings.use_gpu else 0}
    if settings.threads:
        actor["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": str(settings.threads)}}
    deployment = serve.deployment(
        name=name,
        num_replicas=settings.replicas,
        max_ongoing_requests=2 * settings.batch_requests,  # one batch runs while the next one fills
        max_queued_requests=settings.queue,
        ray_actor_options=actor,
        health_check_period_s=5,
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=120,
    )
    return deployment(Replica).bind(name, settings.modules[name], settings)


def build(arguments: dict[str, Any]) -> serve.Application:
    """Build the app for Ray Serve's own proxies, from the `args` of a RayService; see `Settings`."""
    settings = Settings(**arguments)
    gateway = serve.deployment(
        name="Gateway",
        num_replicas=settings.gateways,
        max_ongoing_requests=10_000,  # the admission middleware limits them
        graceful_shutdown_timeout_s=120,
        ray_actor_options={"num_cpus": 0},
    )
    # Ray Serve calls this lambda after it has created the `Gateway` of this process.
    ingress = serve.ingress(lambda: gateway_api(Gateway.here))
    return gateway(ingress(Gateway)).bind(
        settings, **{name: replica(settings, name) for name in settings.modules}
    )


def _grey_image() -> Image.Image:
    return Image.new("RGB", (64, 64), (128, 128, 128))


def _metrics_of(node: dict[str, Any]) -> str:
    """The metrics of this server and of Ray Serve on a node, without the many others of Ray."""
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        with requests.Session() as session:
            session.trust_env = False  # nodes are not behind a proxy
            lines = session.get(address, timeout=2).text.splitlines(keepends=True)
    except requests.RequestException as error:
        return f"# {address} does not answer: {type(error).__name__}\n"
    wanted = re.compile(r"(# (HELP|TYPE) )?ray_(clip|serve)_")
    return "".join(line.replace("ray_clip_", "clip_", 1) for line in lines if wanted.match(line))
