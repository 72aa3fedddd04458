"""Computes the figures of the model card on the held-out splits, with the module's own preprocessing.

`python -m recipes.clip_mini.evaluate clip_mini.safetensors --data DATA`. Labels do not come from the training
data: they are listed in this folder, or are the names of the held-out images.
"""

from __future__ import annotations

import argparse
import collections
import csv
import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clip_common.config import pretrained
from clip_common.errors import ClipError, TrainingError
from clip_common.predictor import Predictor
from clip_common.text.prompts import LABEL_SETS, read_lines
from clip_common.zero_shot.scoring import l2_normalize

from .captions import head_noun
from .data import DEFAULT_CACHE, Dataset, to_image
from .splits import HELD_OUT_STYLE, percentile, rows_of

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
TEMPLATE = "a picture of a {}"
_PICTOGRAMS = Path(__file__).with_name("pictogram_names.txt")


@dataclass(frozen=True)
class Task:
    """A classification task: `answers` are the indices in `labels` of the right label for each row."""

    name: str
    rows: list[int]
    answers: list[int]
    labels: list[str]


@dataclass(frozen=True)
class Share:
    """A share `hits / count` with its 95 % Wilson score interval."""

    hits: int
    count: int

    def interval(self) -> tuple[float, float]:
        """The lower and upper bound of the share, 0 to 1."""
        z, n = 1.96, self.count
        share = self.hits / n
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return centre - half, centre + half

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.hits / self.count:.1%} ({low:.1%} to {high:.1%})"


def _answers(rows: Sequence[int], names: Sequence[str], name: str, labels: Sequence[str]) -> Task:
    """A task of the images whose names are among the labels."""
    index = {label: i for i, label in enumerate(labels)}
    pairs = [(row, index[word]) for row, word in zip(rows, names, strict=True) if word in index]
    return Task(name, [row for row, _ in pairs], [answer for _, answer in pairs], list(labels))


def style_tasks(data: Dataset, count: int = 60) -> list[Task]:
    """Tasks in the held-out style: `count` everyday nouns chosen by hash, one image each; then all nouns of
    `pictogram_names.txt`."""
    first: dict[str, int] = {}
    for row in rows_of(data.captions, "style"):
        first.setdefault(data.captions[row].name.lower(), int(row))
    labels = _PICTOGRAMS.read_text("utf-8").splitlines()
    known = sorted(
        (label for label in labels if label.lower() in first), key=lambda text: (percentile(text), text)
    )
    some, rows = known[:count], [first[label.lower()] for label in known]
    return [
        _answers(rows[:count], some, f"{HELD_OUT_STYLE}, everyday labels", some),
        _answers(rows, known, f"{HELD_OUT_STYLE}, 248 pictograms", labels),
    ]


def concept_task(data: Dataset) -> Task:
    """Concepts held out in one style that training saw in other styles: choose the caption of an image."""
    trained = {data.captions[row].concept for row in rows_of(data.captions, "train")}
    first: dict[str, int] = {}
    for row in rows_of(data.captions, "concept"):
        caption = data.captions[row]
        if caption.concept in trained and caption.source.endswith("/noto"):
            first.setdefault(caption.name, int(row))
    names = list(first)
    return _answers(list(first.values()), names, "Noto, held-out concepts, image to caption", names)


def clip_art_tasks(data: Dataset, count: int = 90) -> list[Task]:
    """Tasks on held-out clip-art: choose among the most frequent nouns, and among all full names."""
    rows = [int(row) for row in rows_of(data.captions, "clip-art")]
    heads = [head_noun(data.captions[row].name) for row in rows]
    common = collections.Counter(head for head in heads if len(head) > 2 and head.isalpha()).most_common()
    labels = [head for head, _ in sorted(common, key=lambda item: (-item[1], item[0]))[:count]]
    names = [data.captions[row].name for row in rows]
    return [
        _answers(rows, heads, "clip-art, the commonest nouns", labels),
        _answers(rows, names, "clip-art, image to caption", sorted(set(names))),
    ]


def score(predictor: Predictor, data: Dataset, task: Task) -> dict:
    """Compute the top-1 and top-5 accuracy of a task, and list confusions."""
    images = [(f"image {row}", to_image(data.images[row])) for row in task.rows]
    features = np.stack([np.asarray(f) for batch in predictor.image_features(images) for f in batch])  # n d
    texts = predictor.text_features([TEMPLATE.replace("{}", label) for label in task.labels])  # labels d
    similarity = l2_normalize(features) @ l2_normalize(texts).T  # n labels
    right = similarity[np.arange(len(task.rows)), task.answers]
    place = (similarity > right[:, None]).sum(axis=1)
    top1, top5 = (Share(int((place < k).sum()), len(place)) for k in (1, 5))
    confusions = [
        {
            "row": task.rows[i],
            "is": task.labels[answer],
            "taken for": task.labels[int(similarity[i].argmax())],
        }
        for i, answer in enumerate(task.answers)
        if place[i]
    ]
    return {
        "task": task.name,
        "pictures": len(place),
        "labels": len(task.labels),
        "top1": top1.hits / top1.count,
        "top1 interval": top1.interval(),
        "top5": top5.hits / top5.count,
        "top5 interval": top5.interval(),
        "line": f"| {task.name} | {len(place)} | {len(task.labels)} | {top1} | {top5} |",
        "confusions": confusions[:30],
    }


def evaluate(weights: Path, data: Dataset) -> dict:
    """All figures of a weights file, and its answers for images of `examples/`."""
    predictor = Predictor(dataclasses.replace(pretrained("clip_mini")), weights)
    tasks = [*style_tasks(data), concept_task(data), *clip_art_tasks(data)]
    figures = [score(predictor, data, task) for task in tasks if task.rows]
    paths = [EXAMPLES / name for name in ("diagram.png", "flowchart.png", "dog.png", "cat.png")]
    answers = predictor.classify(paths=paths, labels=["a diagram", "a dog", "a cat"])
    diagrams = {path.name: answer for path, answer in zip(paths, answers, strict=True)}
    return {"weights": str(weights), "figures": figures, "diagram, dog, cat": diagrams}


def photograph_figures(weights: Path, table: Path) -> list[dict]:
    """Top-1 and top-5 on your own photographs, by group, among the module's labels and the table's.

    The table is tab-separated with the columns file, label, imagenet (the group) and also_ok (other right
    labels, separated by commas).
    """
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    record = pretrained("clip_mini")
    labels = list(
        dict.fromkeys([*read_lines(LABEL_SETS[record.default_labels]), *(r["label"] for r in rows)])
    )
    predictor = Predictor(record, weights)
    paths = [table.parent / row["file"] for row in rows]
    answers = predictor.classify(
        paths=paths, labels=labels, templates=record.default_templates, top_k=len(labels)
    )
    places: dict[str, list[int]] = {}
    for row, answer in zip(rows, answers, strict=True):
        ranked = [item["label"] for item in answer]
        right = [row["label"], *filter(None, map(str.strip, row["also_ok"].split(",")))]
        place = min(ranked.index(label) for label in right if label in ranked)
        places.setdefault(row["imagenet"], []).append(place)
    lines = []
    for group, found in sorted(places.items()):
        top1, top5 = (Share(sum(place < k for place in found), len(found)) for k in (1, 5))
        name = f"photographs, group {group!r}"
        lines.append({"task": name, "line": f"| {name} | {len(found)} | {len(labels)} | {top1} | {top5} |"})
    return lines


def draw_confusions(data: Dataset, confusions: Sequence[dict], path: Path) -> None:
    """Draw the misclassified images with their right and predicted labels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 6
    rows = math.ceil(len(confusions) / columns)
    figure = Figure(figsize=(1.7 * columns, 2.1 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes in grid:
        axes.set_axis_off()
    for axes, confusion in zip(figure.axes, confusions, strict=False):
        axes.imshow(to_image(data.images[confusion["row"]]))
        axes.set_title(f"{confusion['is']}\nas {confusion['taken for']}", fontsize=9)
    figure.savefig(path, dpi=80)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.clip_mini.evaluate", description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, default=DEFAULT_CACHE / "data")
    parser.add_argument("--photographs", type=Path, help="a table of photographs to name too")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--confusions", type=Path, help="also draw here what the first task got wrong")
    arguments = parser.parse_args()
    try:
        data = Dataset.open(arguments.data)
        result = evaluate(arguments.weights, data)
        if arguments.photographs:
            result["figures"] += photograph_figures(arguments.weights, arguments.photographs)
    except (TrainingError, ClipError) as error:
        raise SystemExit(f"recipes.clip_mini.evaluate: {error}") from None
    print("| held-out images | n | labels | top-1 (95 %) | top-5 (95 %) |\n| --- | --- | --- | --- | --- |")
    print("\n".join(figure["line"] for figure in result["figures"]))
    for name, answer in result["diagram, dog, cat"].items():
        print(name, ", ".join(f"{item['label']} {item['score']:.2f}" for item in answer))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1, ensure_ascii=False), "utf-8")
    if arguments.confusions:
        draw_confusions(data, result["figures"][0]["confusions"], arguments.confusions)


if __name__ == "__main__":
    main()
