"""The HTTP API as a FastAPI app: `/predict/<module>` and the operational routes; OpenAI's are added.

It knows neither Ray nor a model, only a `Service`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from ..errors import BusyError
from ..version import __version__
from .limits import Limits
from .openai_routes import add_openai_routes
from .request import PredictRequest, RequestBody
from .responses import STATUSES, described, hub_response, json_body, off_the_loop, outcome, status_of
from .service import Service

Result = TypeVar("Result")
_LOOK = 0.5  # seconds between checks whether the client of a long request is still connected


def create_api(service: Service) -> FastAPI:
    """Create the app of a service."""
    api = FastAPI(
        title="CLIP on PaddlePaddle",
        version=__version__,
        description="Zero-shot classification and embedding of images and texts.",
        openapi_tags=[{"name": "predict"}, {"name": "openai"}, {"name": "operations"}],
    )
    limits = Limits.from_environment()
    add_openai_routes(api, service, limits)
    _add_predict_routes(api, service, limits)
    _add_operations(api, service)
    return api


def _add_predict_routes(api: FastAPI, service: Service, limits: Limits) -> None:
    async def predict(module: str, request: Request) -> Response:
        start = time.perf_counter()
        body = await request.body()

        async def ask() -> Any:
            work = await _parsed(body, limits)
            asking = service.ask(module, work)
            return await (_while_connected(request, asking) if work.explain else asking)

        status, content = await outcome(ask(), module, status_of)
        service.observe(module, status, time.perf_counter() - start)
        return await off_the_loop(hub_response, status, content)

    for module in service.modules:
        _add_predict(api, module, predict)

    @api.post("/predict/{module}", include_in_schema=False)
    async def unknown(module: str) -> Response:
        known = ", ".join(service.modules)
        return hub_response(404, f"no module named {module[:80]!r} is served here: there are {known}")


def _add_predict(api: FastAPI, module: str, predict: Callable[[str, Request], Awaitable[Response]]) -> None:
    """Add the route of a module. Each has its own, so that OpenAPI lists them."""

    async def route(request: Request) -> Response:
        return await predict(module, request)

    api.add_api_route(
        f"/predict/{module}",
        route,
        methods=["POST"],
        tags=["predict"],
        name=module,
        summary=f"Classify or embed with {module}",
        responses=described(*STATUSES),
        openapi_extra=json_body(RequestBody.model_json_schema()),
    )


def _add_operations(api: FastAPI, service: Service) -> None:
    @api.head("/health", include_in_schema=False)
    @api.get("/health", tags=["operations"], summary="Whether the process is up")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.head("/ready", include_in_schema=False)
    @api.get("/ready", tags=["operations"], summary="Whether every module answers", responses=described(503))
    async def ready() -> Response:
        missing = await service.ready()
        return hub_response(503, missing) if missing else JSONResponse({"status": "ok"})

    @api.head("/metrics", include_in_schema=False)
    @api.get("/metrics", tags=["operations"], summary="For Prometheus", response_class=PlainTextResponse)
    async def metrics() -> str:
        return await off_the_loop(service.metrics)


async def _parsed(body: bytes, limits: Limits) -> PredictRequest:
    """Parse and check the body of a request; raises `ClipError`."""
    return await off_the_loop(lambda: RequestBody.parse_json(body).work(limits))


async def _while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Await a long computation; cancels it if the client disconnects."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK)
            if not task.done() and await request.is_disconnected():
                raise BusyError("the client has disconnected")
        return task.result()
    finally:
        task.cancel()
