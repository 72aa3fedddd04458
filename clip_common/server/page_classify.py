"""The tab of the web page that classifies an image, and explains a label by a heat map."""

from __future__ import annotations

import base64
import html
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ..config import Pretrained
from ..system.file_names import printable
from ..visualize import draw_heat_map, strengths
from ..zero_shot.explain import COPIES
from .page_helpers import Ask, encoded, in_painter, or_page_error, page_error, png, split
from .request import MOST_EXPLAINED

KEPT_SECONDS = 600
"""How long answers and uploads are kept."""

_BARS = MOST_EXPLAINED
_WEAK = 0.15  # a heat map whose maximum is lower shows next to nothing
_SCORES = {"compare the labels (softmax)": "softmax", "each label by itself (cosine)": "cosine"}
_HELP = (
    "A softmax compares the labels: the scores add up to 1, and none of the labels need be right. A cosine "
    "judges each label alone: with a threshold, several labels may be true, or none. Without labels the "
    "module's default set is used."
)
_NONE = "none of these"
_HINT = "<p>Click a label to see which parts of the image support it.</p>"


@dataclass
class _Answered:
    """An answer that a visitor sees, kept as long as it may be explained.

    Attributes:
        image: the uploaded file.
        body: the request, without the image.
        labels: the labels, by the text that the page shows for them.
        maps: colour strengths of the labels' heat maps, once they are computed.
        squashed: the maps cover the whole image, not its central square.
        outdated: the visitor has asked for another answer since.
    """

    image: str
    body: dict[str, Any]
    labels: dict[str, str]
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    squashed: bool = False
    outdated: bool = False

    def keep(self, explained: list[dict[str, Any]]) -> None:
        """Keep the heat maps of an answer, in float16."""
        drawn = strengths([np.array(item["heat"], np.float32) for item in explained])
        names = [item["label"] for item in explained]
        self.maps = {name: each.astype(np.float16) for name, each in zip(names, drawn, strict=True)}
        self.squashed = explained[0]["heat_of"] == "whole"


class ClassifyTab:
    """The handlers of the tab.

    Args:
        ask: answers a request.
        explains: whether a click on a label shows its heat map.
    """

    def __init__(self, ask: Ask, explains: bool) -> None:
        self._ask, self._explains = ask, explains

    def add_to_page(self, record: Pretrained) -> None:
        """Add the tab to the page that is being built."""
        with gr.Tab("Classify"), gr.Row():
            with gr.Column():
                image = gr.Image(
                    type="filepath",
                    image_mode=None,  # the file unchanged: converting would turn transparency black
                    label="Image",
                    sources=["upload", "clipboard"],
                    height=300,
                )
                labels = gr.Textbox(label="Labels, one per line or separated by commas", lines=4)
                template = gr.Textbox(label="Template", placeholder=record.default_templates[0])
                kind = gr.Radio(list(_SCORES), value=next(iter(_SCORES)), label="Kind of score")
                thresholds = gr.Textbox(
                    label="Threshold: show only labels with at least this score",
                    placeholder="one number, or one for each label, separated by commas",
                )
                button = gr.Button("Classify", variant="primary")
            with gr.Column():
                scores = gr.Label(label="Scores", num_top_classes=_BARS)
                why = gr.HTML()
                gr.Markdown(_HELP)
            answered = gr.State(time_to_live=KEPT_SECONDS)
            inputs = [image, labels, template, kind, thresholds, answered]
            button.click(self.classify, inputs, [scores, answered, why], api_name=False)
            if self._explains:
                scores.select(self.explain, answered, why, api_name=False)

    async def classify(
        self,
        image: str | None,
        labels: str,
        template: str,
        scores: str,
        thresholds: str,
        before: _Answered | None,
    ) -> tuple[dict[str, float] | str, _Answered, str]:
        """Classify the image: the bars, the answer to keep, and a hint below the bars."""
        if not image:
            raise page_error("Choose an image first")
        kind = _SCORES.get(scores)
        body: dict[str, Any] = {"top_k": _BARS, "scores": kind}
        if chosen := split(labels):
            body["labels"] = chosen
            body["templates"] = template.strip() or None
        if thresholds.strip():
            body["thresholds"] = _numbers(thresholds)
        (answer,) = await or_page_error(self._ask({**body, "images": await encoded([image])}))
        # Gradio's bars show whole percents, so a cosine is printed beside its label.
        shown = "{label} ({score:.4f})" if kind == "cosine" else "{label}"
        names = [shown.format_map(item) for item in answer]
        if before:
            before.outdated = True
        answered = _Answered(image, body, {n: item["label"] for n, item in zip(names, answer, strict=True)})
        bars = {n: max(item["score"], 0) for n, item in zip(names, answer, strict=True)}
        return bars or _NONE, answered, _HINT if self._explains and bars else ""

    async def explain(self, answered: _Answered | None, event: gr.SelectData) -> AsyncIterator[str]:
        """Show the heat map of the label that was clicked. The first click computes those of all labels."""
        label = answered.labels.get(str(event.value)) if answered else None
        if answered is None or label is None:
            raise page_error("Answers are kept for ten minutes: classify again")
        if not answered.maps:
            yield _working(label)
            try:
                body = {**answered.body, "images": await encoded([answered.image]), "explain": _BARS}
                (explained,) = await or_page_error(self._ask(body))
            except gr.Error:
                yield _HINT
                raise
            answered.keep(explained)
        if label not in answered.maps:  # with equal scores, another label may be among the best this time
            raise page_error("The answer has changed: classify again")
        if not answered.outdated:
            yield await or_page_error(in_painter(lambda: _explained(answered, label)))


def _working(label: str) -> str:
    return (
        f"<p role='status'>Looking for what supports {_quoted(label)}: the model sees {COPIES} copies of "
        "the image, each with different parts blurred, which takes as long as classifying so many ...</p>"
    )


def _explained(answered: _Answered, label: str) -> str:
    """The heat map of a label over the image, as HTML."""
    strength = answered.maps[label].astype(np.float32)
    figure = draw_heat_map(Path(answered.image), strength, "the image", answered.squashed)
    source = base64.b64encode(png(figure)).decode()
    said = f"What supports {_quoted(label)} against the other labels"
    if strength.max() < _WEAK:
        said = f"Hardly anything in the image supports {_quoted(label)} more than the other labels"
    alt = f"The image in grey; in colour, the parts that support {html.escape(printable(label))}"
    return (
        f"<figure><img src='data:image/png;base64,{source}' alt='{alt}' style='max-width: 100%'>"
        f"<figcaption role='status'>{said}: the stronger the colour, the more. The dashed frame is what the "
        "model sees. Click another label to see its map, on the same scale.</figcaption></figure>"
    )


def _quoted(label: str) -> str:
    """A label in quotes, safe as HTML whatever it contains."""
    return f"“<bdi style='overflow-wrap: anywhere'>{html.escape(printable(label))}</bdi>”"


def _numbers(text: str) -> float | list[float]:
    """One number, or several separated by commas."""
    try:
        numbers = [float(part) for part in split(text)]
    except ValueError:
        raise page_error(f"The threshold {text[:60]!r} is not a number") from None
    return numbers[0] if len(numbers) == 1 else numbers
