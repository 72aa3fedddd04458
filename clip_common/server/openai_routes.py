"""The routes that OpenAI's clients use: `POST /v1/embeddings` and `GET /v1/models`."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from . import openai_api
from .limits import Limits
from .openai_api import EmbeddingsBody
from .responses import STATUSES, described, json_body, off_the_loop, openai_response, outcome
from .service import Service

_ERRORS = [status for status in STATUSES if status not in (200, 422)]


def add_openai_routes(api: FastAPI, service: Service, limits: Limits) -> None:
    """Add the routes, and errors in OpenAI's form for all paths below `/v1/`."""
    errors = partial(described, schema=openai_api.ERROR_SCHEMA)
    add = partial(api.add_api_route, tags=["openai"])
    routes = _Routes(service, limits)
    add(
        f"{openai_api.PREFIX}embeddings",
        routes.embeddings,
        methods=["POST"],
        summary="Embed texts and images, in OpenAI's form",
        responses=described(200, schema=openai_api.EMBEDDINGS_SCHEMA) | errors(*_ERRORS),
        openapi_extra=json_body(EmbeddingsBody.model_json_schema()),
    )
    add(
        f"{openai_api.PREFIX}models",
        routes.models,
        methods=["GET"],
        summary="The modules that are served",
        responses=described(200, schema=openai_api.MODELS_SCHEMA) | errors(401, 503),
    )
    add(
        f"{openai_api.PREFIX}models/{{name:path}}",
        routes.model,
        methods=["GET"],
        summary="One module",
        responses=described(200, schema=openai_api.MODEL_SCHEMA) | errors(401, 404, 503),
    )
    api.add_exception_handler(HTTPException, _unknown_route)  # type: ignore[arg-type]


class _Routes:
    """The handlers of the routes."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service, self._limits = service, limits
        self._created = int(time.time())

    async def embeddings(self, request: Request) -> Response:
        start = time.perf_counter()
        raw = await request.body()
        parsing = off_the_loop(EmbeddingsBody.read, raw, self._service.modules)
        status, body = await outcome(parsing, request.url.path, openai_api.status_of)
        if not isinstance(body, EmbeddingsBody):  # without a module there is nothing to count
            return openai_response(status, body)
        answering = self._answer(body)
        status, content = await outcome(answering, body.model, openai_api.status_of)
        self._service.observe(body.model, status, time.perf_counter() - start)
        return await off_the_loop(openai_response, status, content)

    async def _answer(self, body: EmbeddingsBody) -> dict[str, Any]:
        results = await self._service.ask(body.model, await off_the_loop(body.work, self._limits))
        return await off_the_loop(body.answer, results)

    async def models(self) -> Response:
        listed = [openai_api.model_content(name, self._created) for name in self._service.modules]
        return openai_response(200, {"object": "list", "data": listed})

    async def model(self, name: str) -> Response:
        if name not in self._service.modules:
            return openai_response(404, openai_api.UnknownModelError(name, self._service.modules))
        return openai_response(200, openai_api.model_content(name, self._created))


async def _unknown_route(request: Request, error: HTTPException) -> Response:
    path = request.url.path
    if not path.startswith(openai_api.PREFIX):
        return await http_exception_handler(request, error)
    why = f"{request.method} {path[:80]} is not served: there are POST /v1/embeddings and GET /v1/models"
    return JSONResponse(openai_api.error_content(error.status_code, why), error.status_code, error.headers)
