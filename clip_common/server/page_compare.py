"""The tab of the web page that compares several images with several texts."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from ..system.words import counted
from ..visualize import draw_similarities
from .page_helpers import Ask, encoded, in_painter, or_page_error, page_error, png, split

_CELLS = 500  # maximum number of pairs in a matrix; drawing one takes about a millisecond


def add_compare_tab(ask: Ask) -> None:
    """Add the tab to the page that is being built."""
    with gr.Tab("Compare"), gr.Row():
        with gr.Column():
            images = gr.File(label="Images", file_count="multiple", file_types=["image"])
            texts = gr.Textbox(label="Texts, one per line or separated by commas", lines=4)
            button = gr.Button("Compare", variant="primary")
        with gr.Column():
            similarities = gr.Image(show_label=False, format="png", interactive=False)
        button.click(partial(_compare, ask), [images, texts], similarities, api_name=False)


async def _compare(ask: Ask, images: list[str] | None, texts: str) -> Image.Image:
    """Draw the cosines of all images with all texts."""
    chosen = split(texts)
    if not images or not chosen:
        raise page_error("Give at least one image and one text")
    pairs = len(images) * len(chosen)
    if pairs > _CELLS:
        raise page_error(
            f"{counted(len(images), 'image')} and {counted(len(chosen), 'text')} are {pairs} pairs: "
            f"at most {_CELLS} are drawn"
        )
    embeddings = await or_page_error(ask({"images": await encoded(images), "texts": chosen}))
    cosines = np.array(embeddings["images"]) @ np.array(embeddings["texts"]).T  # images d, d texts
    names = [Path(path).name for path in images]
    content = await in_painter(lambda: png(draw_similarities(cosines, names, chosen)))
    return Image.open(io.BytesIO(content))
