"""The tab of the web page that searches an index by words, by an image, or by one of the images found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from ..search.finder import Finder, Found
from ..search.query import combined, terms_of
from .page_helpers import Ask, encoded, or_page_error, page_error

_HITS = 20


class SearchTab:
    """The handlers of the tab.

    Args:
        ask: answers a request.
        find: searches the index.
    """

    def __init__(self, ask: Ask, find: Finder) -> None:
        self._ask, self._find = ask, find

    def add_to_page(self) -> None:
        """Add the tab to the page that is being built."""
        with gr.Tab("Search"), gr.Row():
            with gr.Column():
                words = gr.Textbox(label="Words", placeholder="a dog - snow")
                like = gr.Image(
                    type="filepath",
                    image_mode=None,
                    label="Like this image",
                    sources=["upload", "clipboard"],
                    height=240,
                )
                weight = gr.Slider(0, 1, 0.5, label="Weight of the words beside the image")
                path = gr.Textbox(label="Only paths like", placeholder="*/holidays/*")
                search_button = gr.Button("Search", variant="primary")
            with gr.Column(scale=2):
                hits = gr.Gallery(label="Found", columns=4, height="auto", object_fit="contain")
                more_button = gr.Button("More like the one chosen")
            paths, chosen = gr.State([]), gr.State()
            outputs, triggers = [hits, paths, chosen], [search_button.click, words.submit]
            gr.on(triggers, self.search, [words, like, weight, path], outputs, api_name=False)
            hits.select(_chosen, None, chosen, api_name=False)
            more_button.click(self.more, [paths, chosen, path], outputs, api_name=False)

    async def search(self, words: str, image: str | None, weight: float, path: str) -> tuple:
        """Search by words, an image, or both."""
        if not words.strip() and not image:
            raise page_error("Enter some words, or choose an image")
        return _gallery(await or_page_error(self._nearest(words, image, weight, path)))

    async def more(self, paths: list[str], chosen: Any, path: str) -> tuple:
        """Search for images like the one that is selected in the gallery."""
        if not isinstance(chosen, int) or not 0 <= chosen < len(paths):
            raise page_error("Choose one of the images found")
        search = asyncio.to_thread(self._find.like, paths[chosen], _HITS, path.strip() or None)
        return _gallery(await or_page_error(search))

    async def _nearest(self, words: str, image: str | None, weight: float, path: str) -> list[Found]:
        terms = terms_of(words) if words.strip() else []
        body: dict[str, Any] = {"task": "embed"}
        if terms:
            body["texts"] = [term.text for term in terms]
        if image:
            body["images"] = await encoded([image])
        embeddings = await self._ask(body)
        texts, images = (
            None if embeddings[kind] is None else np.array(embeddings[kind], np.float32)
            for kind in ("texts", "images")
        )
        vector = combined(texts, [term.weight for term in terms], images, weight)
        return await asyncio.to_thread(self._find, vector, _HITS, path.strip() or None)


def _gallery(results: Sequence[Found]) -> tuple[gr.Gallery, list[str], None]:
    """The gallery with the results, their paths, and no selection."""
    shown = gr.Gallery([(result.image, result.caption) for result in results], selected_index=None)
    return shown, [result.path for result in results], None


def _chosen(event: gr.SelectData) -> Any:
    return event.index
