"""The HTTP door: routes, statuses, the reply's envelope. It knows FastAPI, and neither Ray nor a model."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from ..errors import BusyError, ClipError, LimitError, MalformedError, WeightsError
from ..system.log import logger
from ..version import __version__
from . import openai_api
from .admission import RETRY_AFTER
from .limits import Limits
from .openai_api import EmbeddingsBody
from .request import PredictRequest, RequestBody

Made = TypeVar("Made")
_WORKERS = ThreadPoolExecutor(4, "clip-http")  # read bodies and write answers; the event loop only passes on
_LOOK = 0.5  # seconds after which a client that waits long is looked for
_STATUSES = (
    (MalformedError, 400),
    (LimitError, 413),
    (BusyError, 503),
    (WeightsError, 500),
    (ClipError, 422),
)
_FAILED = ClipError("the server failed; its log says why")
_REPLY = {
    "type": "object",
    "required": ["status", "msg", "results"],
    "properties": {
        "status": {"type": "string", "description": "'000', or '101' with a reason in `msg`"},
        "msg": {"type": "string"},
        "results": {"description": "as the module's `classify` or `embed` gives them"},
    },
}
_WHY = {
    200: "the results",
    400: "the body is not JSON",
    401: "the API key is missing or wrong",
    404: "no such module is served here",
    408: "the body came too slowly",
    413: "more than a limit allows; the message names it",
    415: "the body is packed in a way that is not read here",
    422: "a field is wrong, or an image cannot be read; the message names it",
    500: "a fault of the server",
    503: "too busy, or not done within the deadline; see Retry-After",
}
_OPENAI_ERRORS = [status for status in _WHY if status not in (200, 422)]


class Service(Protocol):
    """What the door opens to."""

    @property
    def modules(self) -> Collection[str]:
        """Names of the modules that are served."""

    async def ask(self, module: str, work: PredictRequest) -> Any:
        """The `results` of a request. Raises the `ClipError` that it gets."""

    async def ready(self) -> str | None:
        """None when every module answers, else what is missing."""

    def observe(self, module: str, status: int, seconds: float) -> None:
        """Count a request."""

    def metrics(self) -> str:
        """All metrics, as Prometheus reads them."""


def create_api(service: Service) -> FastAPI:
    """The routes of a service."""
    api = FastAPI(
        title="CLIP on PaddlePaddle",
        version=__version__,
        description="Zero-shot classification and embedding of images and texts.",
        openapi_tags=[{"name": "predict"}, {"name": "openai"}, {"name": "operations"}],
    )
    limits = Limits.from_environment()
    _add_openai(api, service, limits)

    async def predict(module: str, request: Request) -> Response:
        start = time.perf_counter()
        body = await request.body()

        async def ask() -> Any:
            work = await read_body(body, limits)
            asking = service.ask(module, work)
            return await (_while_there(request, asking) if work.explain else asking)

        status, content = await _outcome(ask(), module, _status_of)
        service.observe(module, status, time.perf_counter() - start)
        return await off_the_loop(_json, status, content)

    for module in service.modules:
        _add_predict(api, module, predict)

    @api.post("/predict/{module}", include_in_schema=False)
    async def unknown(module: str) -> Response:
        known = ", ".join(service.modules)
        return _json(404, f"no module named {module[:80]!r} is served here: there are {known}")

    @api.head("/health", include_in_schema=False)
    @api.get("/health", tags=["operations"], summary="Whether the server lives")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.head("/ready", include_in_schema=False)
    @api.get("/ready", tags=["operations"], summary="Whether every module answers", responses=_described(503))
    async def ready() -> Response:
        missing = await service.ready()
        return _json(503, missing) if missing else JSONResponse({"status": "ok"})

    @api.head("/metrics", include_in_schema=False)
    @api.get("/metrics", tags=["operations"], summary="For Prometheus", response_class=PlainTextResponse)
    async def metrics() -> str:
        return await off_the_loop(service.metrics)

    return api


async def off_the_loop(make: Callable[..., Made], *arguments: Any) -> Made:
    """The result of a function that takes its time, made by one of a few threads."""
    return await asyncio.get_running_loop().run_in_executor(_WORKERS, make, *arguments)


async def read_body(body: bytes, limits: Limits) -> PredictRequest:
    """What a request's body asks for; raises `ClipError`."""
    return await off_the_loop(lambda: RequestBody.parse_json(body).work(limits))


async def _outcome(
    coming: Awaitable[Any], asked: str, status_of: Callable[[ClipError], int]
) -> tuple[int, Any]:
    """A reply's status, and its content or the error that says why there is none."""
    try:
        return 200, await coming
    except ClipError as error:
        return status_of(error), error
    except Exception:  # its details are for the log, not for whoever asks
        logger.exception("a request to %s failed", asked)
        return 500, _FAILED


async def _while_there(request: Request, coming: Coroutine[Any, Any, Made]) -> Made:
    """The result of what takes long; it is given up where its client has left."""
    asking = asyncio.create_task(coming)
    try:
        while not asking.done():
            await asyncio.wait({asking}, timeout=_LOOK)
            if not asking.done() and await request.is_disconnected():
                raise BusyError("the client has left")
        return asking.result()
    finally:
        asking.cancel()


def _status_of(error: ClipError) -> int:
    return next(status for kind, status in _STATUSES if isinstance(error, kind))


def _add_predict(api: FastAPI, module: str, predict: Any) -> None:
    """A module's route, with the body that it reads described."""

    async def route(request: Request) -> Response:
        return await predict(module, request)

    schema = {"content": {"application/json": {"schema": RequestBody.model_json_schema()}}, "required": True}
    api.add_api_route(
        f"/predict/{module}",
        route,
        methods=["POST"],
        tags=["predict"],
        name=module,
        summary=f"Classify or embed with {module}",
        responses=_described(*_WHY),
        openapi_extra={"requestBody": schema},
    )


def _add_openai(api: FastAPI, service: Service, limits: Limits) -> None:
    """The routes that OpenAI's clients know, and errors in their form for whatever begins as these do."""
    created = int(time.time())
    described = partial(_described, schema=openai_api.ERROR_SCHEMA)
    add = partial(api.add_api_route, tags=["openai"])

    async def embeddings(request: Request) -> Response:
        start = time.perf_counter()
        raw = await request.body()
        reading = off_the_loop(EmbeddingsBody.read, raw, service.modules)
        status, body = await _outcome(reading, request.url.path, openai_api.status_of)
        if status != 200:  # it names no module to count it for
            return _openai_json(status, body)

        async def ask() -> Any:
            results = await service.ask(body.model, await off_the_loop(body.work, limits))
            return await off_the_loop(body.answer, results)

        status, content = await _outcome(ask(), body.model, openai_api.status_of)
        service.observe(body.model, status, time.perf_counter() - start)
        return await off_the_loop(_openai_json, status, content)

    async def models() -> Response:
        listed = [openai_api.model_content(name, created) for name in service.modules]
        return _openai_json(200, {"object": "list", "data": listed})

    async def model(name: str) -> Response:
        if name not in service.modules:
            return _openai_json(404, openai_api.UnknownModelError(name, service.modules))
        return _openai_json(200, openai_api.model_content(name, created))

    async def refused(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        if not path.startswith(openai_api.PREFIX):
            return await http_exception_handler(request, error)
        why = f"{request.method} {path[:80]} is not served: there are POST /v1/embeddings and GET /v1/models"
        return JSONResponse(
            openai_api.error_content(error.status_code, why), error.status_code, error.headers
        )

    schema = {
        "content": {"application/json": {"schema": EmbeddingsBody.model_json_schema()}},
        "required": True,
    }
    add(
        f"{openai_api.PREFIX}embeddings",
        embeddings,
        methods=["POST"],
        summary="Embed texts and images, in OpenAI's form",
        responses=_described(200, schema=openai_api.EMBEDDINGS_SCHEMA) | described(*_OPENAI_ERRORS),
        openapi_extra={"requestBody": schema},
    )
    add(
        f"{openai_api.PREFIX}models",
        models,
        methods=["GET"],
        summary="The modules that are served",
        responses=_described(200, schema=openai_api.MODELS_SCHEMA) | described(401, 503),
    )
    add(
        f"{openai_api.PREFIX}models/{{name:path}}",
        model,
        methods=["GET"],
        summary="One module",
        responses=_described(200, schema=openai_api.MODEL_SCHEMA) | described(401, 404, 503),
    )
    api.add_exception_handler(HTTPException, refused)  # type: ignore[arg-type]


def _described(*statuses: int, schema: Any = _REPLY) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": schema}}
    return {status: {"description": _WHY[status], "content": content} for status in statuses}


def _json(status: int, content: Any) -> Response:
    """PaddleHub's envelope, with a true status."""
    if status == 200:
        return _written({"status": "000", "msg": "", "results": content})
    return _refusal(status, {"status": "101", "msg": str(content), "results": ""})


def _openai_json(status: int, content: Any) -> Response:
    return _written(content) if status == 200 else _refusal(status, openai_api.error_content(status, content))


def _refusal(status: int, content: Any) -> Response:
    return JSONResponse(content, status, RETRY_AFTER if status == 503 else None)


def _written(content: Any) -> Response:
    return Response("".join(_pieces(content, 3)).encode(), media_type="application/json")


def _pieces(value: Any, depth: int) -> Iterator[str]:
    """JSON in pieces of an image or a text each: the event loop gets its turn between them."""
    if depth and isinstance(value, (dict, list)):
        named = isinstance(value, dict)
        yield "{" if named else "["
        for i, key in enumerate(value):
            comma = "," if i else ""
            yield f"{comma}{_dumps(key)}:" if named else comma
            yield from _pieces(value[key] if named else key, depth - 1)
        yield "}" if named else "]"
    else:
        yield _dumps(value)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
