"""The web page of a module: a tab to classify and explain an image, one to compare images with texts, and one
to search an index, if there is one.

The page sends the same requests as HTTP clients do, so the same checks and limits apply.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from gradio.blocks import Block
from gradio.utils import get_upload_folder
from python_multipart.exceptions import FormParserError

from ..config import Pretrained
from ..preprocessing.heif import register_heif
from ..search.finder import Finder
from .admission import RETRY_AFTER, App, Receive, Scope, Send, reply
from .page_classify import KEPT_SECONDS, ClassifyTab
from .page_compare import add_compare_tab
from .page_helpers import Ask, page_error
from .page_search import SearchTab

_SWEEP_SECONDS = 60  # interval at which old uploads are deleted
_UPLOAD_BYTES = 2 << 30  # of all uploads that are kept
_FONTS = ["system-ui", "sans-serif"]  # Gradio's default fonts would be fetched from another server


def create_page(record: Pretrained, ask: Ask, find: Finder | None = None, explains: bool = True) -> gr.Blocks:
    """Create the page of a module.

    Args:
        record: the module.
        ask: answers the body of a request.
        find: searches an index; without it there is no search tab.
        explains: whether a click on a label shows its heat map.
    """
    register_heif()  # Gradio opens uploads with Pillow before we do
    theme = gr.themes.Default(font=_FONTS, font_mono=["monospace"])
    with gr.Blocks(
        title=record.name, theme=theme, analytics_enabled=False, delete_cache=(_SWEEP_SECONDS, KEPT_SECONDS)
    ) as page:
        gr.Markdown(
            f"# {record.name}\nWhich words fit an image? CLIP ({record.config.name}) on PaddlePaddle."
        )
        ClassifyTab(ask, explains).add_to_page(record)
        add_compare_tab(ask)
        if find:
            SearchTab(ask, find).add_to_page()
    for block in page.blocks.values():
        _refuse_addresses(block)
        if isinstance(block, (gr.Image, gr.File)):
            _take_only_uploads(block)
    page.has_launched = True  # else Gradio checks no path of a page that another app mounts
    return page.queue(default_concurrency_limit=16)


def mount_page(api: FastAPI, page: gr.Blocks, path: str) -> None:
    """Add a page to an app."""
    gr.mount_gradio_app(api, page, path, show_api=False)
    mounted: FastAPI = api.routes[-1].app  # type: ignore[attr-defined]
    mounted.debug = False  # else clients see tracebacks
    mounted.add_exception_handler(KeyError, _unknown)
    mounted.add_exception_handler(FormParserError, _damaged)
    mounted.add_middleware(_UploadLimit, uploads=Path(get_upload_folder()))


class _UploadLimit:
    """ASGI middleware that rejects uploads while those that are kept are too large."""

    def __init__(self, app: App, uploads: Path) -> None:
        self._app, self._uploads = app, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the page, or reject it."""
        is_upload = scope["type"] == "http" and scope["path"].endswith("/upload")
        if is_upload and await asyncio.to_thread(_size_of, self._uploads) > _UPLOAD_BYTES:
            why = "too many uploads are kept: try again in some minutes"
            await reply(send, scope["path"], 503, why, RETRY_AFTER)
        else:
            await self._app(scope, receive, send)


def _size_of(folder: Path) -> int:
    size = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # deleted meanwhile
            size += file.stat().st_size
    return size


async def _unknown(_request: Request, _error: Exception) -> JSONResponse:
    """The response to a request by hand for something that the page does not have."""
    return JSONResponse({"detail": "The page has no such function"}, 404)


async def _damaged(_request: Request, error: Exception) -> JSONResponse:
    """The response to an upload whose form is damaged, or whose file has too long a name."""
    return JSONResponse({"detail": f"The upload cannot be read: {error}"}, 400)


def _refuse_addresses(block: Block) -> None:
    """Prevent a block from fetching an address that is posted to it as a file; uploads still work."""
    take = block.async_move_resource_to_block_cache

    async def take_files(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise page_error("An address is not fetched: upload the file")
        return await take(path)

    block.async_move_resource_to_block_cache = take_files


def _take_only_uploads(block: gr.Image | gr.File) -> None:
    """Prevent a block from reading any file of this machine whose path is posted to it, in any form."""
    read, uploads = block.preprocess, Path(block.GRADIO_CACHE)

    def read_uploads(posted: Any) -> Any:
        for file in getattr(posted, "root", [posted]):
            # Gradio would keep the content of a data URL for ever.
            if file and ((file.url or "").startswith("data:") or not _is_below(file.path, uploads)):
                raise page_error("Only an uploaded file is taken: upload it")
        return read(posted)

    block.preprocess = read_uploads


def _is_below(path: str | None, folder: Path) -> bool:
    try:
        return path is not None and Path(path).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # not a path
        return False
