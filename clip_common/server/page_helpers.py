"""What the tabs of the web page share: requests to the module, uploads, and drawing in a thread."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from matplotlib.figure import Figure

from ..errors import ClipError
from ..text.prompts import split_labels

Ask = Callable[[dict[str, Any]], Awaitable[Any]]
"""Sends the body of a request and returns its `results`; raises `ClipError`."""

Result = TypeVar("Result")

# One thread, so that drawing and reading uploads do not block the event loop.
_PAINTER = ThreadPoolExecutor(1, "clip-page")


def page_error(message: str) -> gr.Error:
    """An error that the page shows to the visitor, without a traceback in the log."""
    return gr.Error(message, print_exception=False)


async def or_page_error(result: Awaitable[Result]) -> Result:
    """Await a result; a `ClipError` is shown on the page."""
    try:
        return await result
    except ClipError as error:
        raise page_error(str(error)) from None


async def encoded(paths: Sequence[str]) -> list[str]:
    """Uploaded files as base64."""

    def read() -> list[str]:
        return [base64.b64encode(Path(path).read_bytes()).decode() for path in paths]

    try:
        return await in_painter(read)
    except FileNotFoundError:
        raise page_error("Uploads are kept for ten minutes: choose the file again") from None


async def in_painter(function: Callable[[], Result]) -> Result:
    """Run a function in the page's thread and return its result."""
    return await asyncio.get_running_loop().run_in_executor(_PAINTER, function)


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def split(text: str) -> list[str]:
    """The entries of a text box: one per line, or separated by commas."""
    parts = text.splitlines() if "\n" in text.strip() else split_labels(text)
    return [part.strip() for part in parts if part.strip()]
