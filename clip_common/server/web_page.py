"""A page for people, in a browser: an image's labels as bars and why they are its labels, a map of how texts
and images match, and, where there is an index, a search with thumbnails.

It asks as an HTTP request does, so the same checks and limits hold.
"""

from __future__ import annotations

import asyncio
import base64
import html
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ..config import Pretrained
from ..errors import ClipError
from ..preprocessing.heif import register_heif
from ..search.query import combined, terms_of
from ..search.searcher import Finder, Found
from ..system.file_names import printable
from ..system.words import counted
from ..text.prompts import split_labels
from ..visualize import draw_heat_map, draw_similarities, strengths
from ..zero_shot.explain import COPIES
from .request import MOST_EXPLAINED

Ask = Callable[[dict[str, Any]], Awaitable[Any]]
"""The body of a request to its `results`; raises `ClipError`."""

Made = TypeVar("Made")

_PAINTER = ThreadPoolExecutor(1, "clip-page")
_CELLS = 500  # pairs of a map; one takes about a millisecond to draw
_SWEEP, _KEPT = 60, 600  # seconds between looking for old uploads, and until they are old
_BARS = MOST_EXPLAINED
_WEAK = 0.15  # a map that is drawn nowhere stronger shows next to nothing
_HITS = 20
_FONTS = ["system-ui", "sans-serif"]  # Gradio's own would be fetched from another server
_SCORES = {"compare the labels (softmax)": "softmax", "each label by itself (cosine)": "cosine"}
_HELP = (
    "Compared, scores add up to 1 over the labels given: they do not say that any is right. A cosine is of "
    "one label alone; with a threshold, several labels may be true, or none. Left empty, the labels are the "
    "module's default set."
)
_NONE = "none of these"
_HINT = "<p>Click a label to see where the image has what speaks for it.</p>"


@dataclass
class _Answered:
    """An answer that a visitor sees, as long as it may be asked why.

    Attributes:
        image: the uploaded file.
        body: what was asked, without the image.
        labels: by what stands on the page, the label.
        maps: how strongly each label's map is drawn, once they are made.
        squashed: the maps are of the whole image, not of the square in its middle.
        outdated: the visitor sees another answer by now.
    """

    image: str
    body: dict[str, Any]
    labels: dict[str, str]
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    squashed: bool = False
    outdated: bool = False

    def keep(self, found: list[dict[str, Any]]) -> None:
        """Keep the maps of an answer, as small as they can be drawn from."""
        drawn = strengths([np.array(item["heat"], np.float32) for item in found])
        names = [item["label"] for item in found]
        self.maps = {name: each.astype(np.float16) for name, each in zip(names, drawn, strict=True)}
        self.squashed = found[0]["heat_of"] == "whole"


def create_page(record: Pretrained, ask: Ask, find: Finder | None = None, explains: bool = True) -> gr.Blocks:
    """The page of a module.

    Args:
        record: the module.
        ask: answers a request's body.
        find: searches an index; without one there is no tab for it.
        explains: whether a click on a label shows its heat map.
    """

    async def classify(
        image: str | None, labels: str, template: str, scores: str, thresholds: str, before: _Answered | None
    ) -> tuple[dict[str, float] | str, _Answered, str]:
        if not image:
            raise gr.Error("Choose an image first", print_exception=False)
        kind = _SCORES.get(scores)
        body: dict[str, Any] = {"top_k": _BARS, "scores": kind}
        if chosen := _split(labels):
            body["labels"] = chosen
            body["templates"] = template.strip() or None
        if thresholds.strip():
            body["thresholds"] = _numbers(thresholds)
        (answer,) = await _asked(ask, {**body, "images": await _encoded([image])})
        # Bars are of shares, in whole percent: the cosine itself stands beside its label.
        shown = "{label} ({score:.4f})" if kind == "cosine" else "{label}"
        names = [shown.format_map(item) for item in answer]
        if before:
            before.outdated = True
        answered = _Answered(image, body, {n: item["label"] for n, item in zip(names, answer, strict=True)})
        bars = {n: max(item["score"], 0) for n, item in zip(names, answer, strict=True)}
        return bars or _NONE, answered, _HINT if explains and bars else ""

    async def explain(answered: _Answered | None, event: gr.SelectData) -> AsyncIterator[str]:
        label = answered.labels.get(str(event.value)) if answered else None
        if answered is None or label is None:
            raise gr.Error("Answers are kept for ten minutes: classify again", print_exception=False)
        if not answered.maps:
            yield _working(label)
            try:
                body = {**answered.body, "images": await _encoded([answered.image]), "explain": _BARS}
                (found,) = await _asked(ask, body)
            except gr.Error:
                yield _HINT
                raise
            answered.keep(found)
        if label not in answered.maps:  # of two labels that are alike good, the other one was among the best
            raise gr.Error("The answer is not the same any more: classify again", print_exception=False)
        if not answered.outdated:
            yield await _shown(_in_painter(lambda: _explained(answered, label)))

    async def compare(images: list[str] | None, texts: str) -> Image.Image:
        chosen = _split(texts)
        if not images or not chosen:
            raise gr.Error("Give at least one image and one text", print_exception=False)
        pairs = len(images) * len(chosen)
        if pairs > _CELLS:
            raise gr.Error(
                f"{counted(len(images), 'image')} and {counted(len(chosen), 'text')} are {pairs} pairs: "
                f"at most {_CELLS} are drawn",
                print_exception=False,
            )
        vectors = await _asked(ask, {"images": await _encoded(images), "texts": chosen})
        cosines = np.array(vectors["images"]) @ np.array(vectors["texts"]).T  # images d, d texts
        names = [Path(p).name for p in images]
        return await _in_painter(lambda: _painted(draw_similarities(cosines, names, chosen)))

    register_heif()  # gradio looks at an upload with Pillow before we do
    theme = gr.themes.Default(font=_FONTS, font_mono=["monospace"])
    with gr.Blocks(
        title=record.name, theme=theme, analytics_enabled=False, delete_cache=(_SWEEP, _KEPT)
    ) as page:
        gr.Markdown(
            f"# {record.name}\nWhich words fit an image? CLIP ({record.config.name}) on PaddlePaddle."
        )
        with gr.Tab("Classify"), gr.Row():
            with gr.Column():
                image = gr.Image(
                    type="filepath",
                    image_mode=None,  # the file as it is: converted, a transparent ground becomes black
                    label="Image",
                    sources=["upload", "clipboard"],
                    height=300,
                )
                labels = gr.Textbox(label="Labels, one on a line or with commas between", lines=4)
                template = gr.Textbox(label="Template", placeholder=record.default_templates[0])
                kind = gr.Radio(list(_SCORES), value=next(iter(_SCORES)), label="What a score is")
                thresholds = gr.Textbox(
                    label="Threshold: show only labels that score so much",
                    placeholder="one number, or one for each label with commas between",
                )
                button = gr.Button("Classify", variant="primary")
            with gr.Column():
                scores = gr.Label(label="Scores", num_top_classes=_BARS)
                why = gr.HTML()
                gr.Markdown(_HELP)
            answered = gr.State(time_to_live=_KEPT)
            asked = [image, labels, template, kind, thresholds, answered]
            button.click(classify, asked, [scores, answered, why], api_name=False)
            if explains:
                scores.select(explain, answered, why, api_name=False)
        with gr.Tab("Compare"), gr.Row():
            with gr.Column():
                images = gr.File(label="Images", file_count="multiple", file_types=["image"])
                texts = gr.Textbox(label="Texts, one on a line or with commas between", lines=4)
                compare_button = gr.Button("Compare", variant="primary")
            with gr.Column():
                similarities = gr.Image(show_label=False, format="png", interactive=False)
            compare_button.click(compare, [images, texts], similarities, api_name=False)
        if find:
            _add_search(ask, find)
    for block in page.blocks.values():
        _refuse_addresses(block)
    return page.queue(default_concurrency_limit=16)


def _add_search(ask: Ask, find: Finder) -> None:
    """The tab that searches an index by words, by an image, or by one of the images found."""

    async def nearest(words: str, image: str | None, weight: float, path: str) -> list[Found]:
        terms = terms_of(words) if words.strip() else []
        body: dict[str, Any] = {"task": "embed"}
        if terms:
            body["texts"] = [term.text for term in terms]
        if image:
            body["images"] = await _encoded([image])
        vectors = await ask(body)
        texts, images = (
            None if vectors[kind] is None else np.array(vectors[kind], np.float32)
            for kind in ("texts", "images")
        )
        vector = combined(texts, [term.weight for term in terms], images, weight)
        return await asyncio.to_thread(find, vector, _HITS, path.strip() or None)

    async def search(words: str, image: str | None, weight: float, path: str) -> tuple:
        if not words.strip() and not image:
            raise gr.Error("Give some words, or an image", print_exception=False)
        return _gallery(await _shown(nearest(words, image, weight, path)))

    async def more(paths: list[str], chosen: Any, path: str) -> tuple:
        if not isinstance(chosen, int) or not 0 <= chosen < len(paths):
            raise gr.Error("Choose one of the images found", print_exception=False)
        return _gallery(
            await _shown(asyncio.to_thread(find.like, paths[chosen], _HITS, path.strip() or None))
        )

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
            weight = gr.Slider(0, 1, 0.5, label="How much words count beside an image")
            path = gr.Textbox(label="Only paths like", placeholder="*/holidays/*")
            search_button = gr.Button("Search", variant="primary")
        with gr.Column(scale=2):
            hits = gr.Gallery(label="Found", columns=4, height="auto", object_fit="contain")
            more_button = gr.Button("More like the one chosen")
        paths, chosen = gr.State([]), gr.State()
        found = [hits, paths, chosen]
        gr.on([search_button.click, words.submit], search, [words, like, weight, path], found, api_name=False)
        hits.select(_chosen, None, chosen, api_name=False)
        more_button.click(more, [paths, chosen, path], found, api_name=False)


def _working(label: str) -> str:
    return (
        f"<p role='status'>Looking for what speaks for {_quoted(label)}: the model sees {COPIES} copies of "
        "the image, each with other parts blurred, which takes as long as to classify so many ...</p>"
    )


def _explained(answered: _Answered, label: str) -> str:
    """A label's map over the image, in HTML."""
    strength = answered.maps[label].astype(np.float32)
    figure = draw_heat_map(Path(answered.image), strength, "the image", answered.squashed)
    source = base64.b64encode(_png(figure)).decode()
    said = f"What speaks for {_quoted(label)}, of the labels asked for"
    if strength.max() < _WEAK:
        said = f"Next to nothing in the image speaks for {_quoted(label)} more than for the other labels"
    alt = f"The image in grey; in colour, where it has what speaks for {html.escape(printable(label))}"
    return (
        f"<figure><img src='data:image/png;base64,{source}' alt='{alt}' style='max-width: 100%'>"
        f"<figcaption role='status'>{said}: the stronger the colour, the more. Dashed is what the model "
        "sees. Click another label to see its map, on the same scale.</figcaption></figure>"
    )


def _quoted(label: str) -> str:
    """A label as it stands, whatever it is made of."""
    return f"“<bdi style='overflow-wrap: anywhere'>{html.escape(printable(label))}</bdi>”"


def _gallery(found: Sequence[Found]) -> tuple[Any, list[str], None]:
    """What the gallery shows, the paths of that, and which of it is chosen: none yet."""
    shown = gr.Gallery([(one.image, one.caption) for one in found], selected_index=None)
    return shown, [one.path for one in found], None


def _chosen(event: gr.SelectData) -> Any:
    return event.index


async def _asked(ask: Ask, body: dict[str, Any]) -> Any:
    return await _shown(ask(body))


async def _shown(coming: Awaitable[Any]) -> Any:
    """What comes; a mistake is shown on the page."""
    try:
        return await coming
    except ClipError as error:
        raise gr.Error(str(error), print_exception=False) from None


def _refuse_addresses(block: Any) -> None:
    """Keep a block from fetching what is posted to it as the address of a file; uploads it takes."""
    take = block.async_move_resource_to_block_cache

    async def take_files(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise gr.Error("An address is not fetched: upload the file", print_exception=False)
        return await take(path)

    block.async_move_resource_to_block_cache = take_files


async def _encoded(paths: Sequence[str]) -> list[str]:
    """Uploaded files in base64."""

    def read() -> list[str]:
        return [base64.b64encode(Path(path).read_bytes()).decode() for path in paths]

    try:
        return await _in_painter(read)
    except FileNotFoundError:
        why = "Uploads are kept for ten minutes: choose the file again"
        raise gr.Error(why, print_exception=False) from None


async def _in_painter(make: Callable[[], Made]) -> Made:
    """The result of a function, made by the one thread of its kind: others are served meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(_PAINTER, make)


def _painted(figure: Figure) -> Image.Image:
    """A figure as pixels."""
    return Image.open(io.BytesIO(_png(figure)))


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def _numbers(text: str) -> float | list[float]:
    """One number, or several with commas between."""
    try:
        numbers = [float(part) for part in _split(text)]
    except ValueError:
        raise gr.Error(f"The threshold {text[:60]!r} is not a number", print_exception=False) from None
    return numbers[0] if len(numbers) == 1 else numbers


def _split(text: str) -> list[str]:
    parts = text.splitlines() if "\n" in text.strip() else split_labels(text)
    return [part.strip() for part in parts if part.strip()]
