"""Responses of the HTTP API: results and errors with their statuses, their JSON, and their description.

It knows FastAPI, and neither Ray nor a model.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi.responses import JSONResponse, Response

from ..errors import BusyError, ClipError, LimitError, MalformedError, WeightsError
from ..system.log import logger
from . import openai_api
from .admission import RETRY_AFTER

Result = TypeVar("Result")

# Parse bodies and encode responses in these threads, so that the event loop only passes data on.
_WORKERS = ThreadPoolExecutor(4, "clip-http")
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
        "status": {"type": "string", "description": "'000' for success, '101' for an error"},
        "msg": {"type": "string", "description": "the error message; empty for success"},
        "results": {"description": "the result of the module's `classify` or `embed`"},
    },
}
STATUSES = {
    200: "the results",
    400: "the body is not valid JSON",
    401: "the API key is missing or wrong",
    404: "no module of this name is served",
    408: "the body was not received in time",
    413: "a limit is exceeded; the message names it",
    415: "the content-encoding of the body is not supported",
    422: "a field is invalid, or an image cannot be read; the message names it",
    500: "internal error",
    503: "the server is overloaded, or the deadline was exceeded; see Retry-After",
}
"""Statuses of a response, and what they mean."""


async def off_the_loop(function: Callable[..., Result], *arguments: Any) -> Result:
    """Run a blocking function in a thread and return its result."""
    return await asyncio.get_running_loop().run_in_executor(_WORKERS, function, *arguments)


async def outcome(
    result: Awaitable[Result], asked: str, status_of: Callable[[ClipError], int]
) -> tuple[int, Result | ClipError]:
    """Await a result. Returns 200 and the result, or the status of an error and the error.

    Args:
        result: the result.
        asked: what was requested, for the log.
        status_of: the status of an error.
    """
    try:
        return 200, await result
    except ClipError as error:
        return status_of(error), error
    except Exception:  # details go to the log, not to the client
        logger.exception("a request to %s failed", asked)
        return 500, _FAILED


def status_of(error: ClipError) -> int:
    """The HTTP status of an error of `POST /predict`."""
    return next(status for kind, status in _STATUSES if isinstance(error, kind))


def described(*statuses: int, schema: dict[str, Any] = _REPLY) -> dict[int | str, dict[str, Any]]:
    """The description of responses with these statuses, for OpenAPI."""
    content = {"application/json": {"schema": schema}}
    return {status: {"description": STATUSES[status], "content": content} for status in statuses}


def json_body(schema: dict[str, Any]) -> dict[str, Any]:
    """The description of a required JSON body, for OpenAPI."""
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}


def hub_response(status: int, content: Any) -> Response:
    """A response in PaddleHub's envelope; unlike PaddleHub's own, with a proper HTTP status."""
    if status == 200:
        return _encoded({"status": "000", "msg": "", "results": content})
    return _error(status, {"status": "101", "msg": str(content), "results": ""})


def openai_response(status: int, content: Any) -> Response:
    """A response in OpenAI's form."""
    return _encoded(content) if status == 200 else _error(status, openai_api.error_content(status, content))


def _error(status: int, content: dict[str, Any]) -> Response:
    return JSONResponse(content, status, RETRY_AFTER if status == 503 else None)


def _encoded(content: Any) -> Response:
    return Response("".join(_pieces(content, 3)).encode(), media_type="application/json")


def _pieces(value: Any, depth: int) -> Iterator[str]:
    """Encode JSON in pieces of one image or text each: other threads can run between them."""
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
