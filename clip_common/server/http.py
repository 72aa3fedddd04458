"""The HTTP door: routes, statuses, the reply's envelope. It knows FastAPI, and neither Ray nor a model."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from ..errors import BusyError, ClipError, LimitError, MalformedError, WeightsError
from ..system.log import logger
from ..version import __version__
from .admission import RETRY_AFTER
from .limits import Limits
from .request import PredictRequest, RequestBody

Made = TypeVar("Made")
_WORKERS = ThreadPoolExecutor(4, "clip-http")  # read bodies and write answers; the event loop only passes on
_STATUSES = (
    (MalformedError, 400),
    (LimitError, 413),
    (BusyError, 503),
    (WeightsError, 500),
    (ClipError, 422),
)
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
        openapi_tags=[{"name": "predict"}, {"name": "operations"}],
    )
    limits = Limits.from_environment()

    async def predict(module: str, request: Request) -> Response:
        start = time.perf_counter()
        status, content = await _answer(service, module, await request.body(), limits)
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


async def _answer(service: Service, module: str, body: bytes, limits: Limits) -> tuple[int, Any]:
    """A reply's status, and its results or the message that says why there are none."""
    try:
        return 200, await service.ask(module, await read_body(body, limits))
    except ClipError as error:
        status = next(status for kind, status in _STATUSES if isinstance(error, kind))
        return status, str(error)
    except Exception:  # its details are for the log, not for whoever asks
        logger.exception("a request to %s failed", module)
        return 500, "the server failed; its log says why"


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


def _described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": _REPLY}}
    return {status: {"description": _WHY[status], "content": content} for status in statuses}


def _json(status: int, content: Any) -> Response:
    """PaddleHub's envelope, with a true status."""
    if status == 200:
        pieces = ('{"status":"000","msg":"","results":', *_pieces(content, 2), "}")
        return Response("".join(pieces).encode(), media_type="application/json")
    headers = RETRY_AFTER if status == 503 else None
    return JSONResponse({"status": "101", "msg": content, "results": ""}, status, headers)


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
