"""Figures as a table, JSON, and images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..system.file_names import printable
from ..visualize import text_style
from .evaluate import Figures

_MOST_NAMES = 40  # beyond that, names on a confusion matrix cannot be read


def as_table(figures: dict[str, Figures]) -> str:
    """Markdown: a row for each number of each task."""
    lines = ["| task | figure | value |", "| --- | --- | ---: |"]
    for task, found in figures.items():
        for name, value in found.numbers.items():
            shown = f"{value:.4f}" if isinstance(value, float) and value < 1000 else str(value)
            lines.append(f"| {task} | {name} | {shown} |")
    return "\n".join(lines)


def write(figures: dict[str, Figures], folder: Path) -> None:
    """Write `figures.json`, `figures.md`, and of each task its confusion matrix and calibration plot."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {task: {**found.numbers, "errors": found.errors} for task, found in figures.items()}
    (folder / "figures.json").write_text(json.dumps(document, indent=1), "utf-8")
    (folder / "figures.md").write_text(as_table(figures) + "\n", "utf-8")
    for task, found in figures.items():
        stem = task.replace(" ", "_")
        if found.confusion is not None:
            _confusion(found.confusion, found.classes, folder / f"{stem}_confusion.png")
        if found.calibration is not None:
            _calibration(found.calibration, folder / f"{stem}_calibration.png")


def _confusion(matrix: np.ndarray, classes: list[str], path: Path) -> None:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(3 + 0.3 * len(classes), 14)
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shown, ax=axes, shrink=0.6, label="share of the class")
    if len(classes) <= _MOST_NAMES:
        names = [printable(name) for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90, **text_style(*names))
        axes.set_yticks(range(len(names)), names, **text_style(*names))
    axes.set(xlabel="taken for", ylabel="is")
    figure.savefig(path, dpi=100)


def _calibration(table: np.ndarray, path: Path) -> None:
    figure = Figure(figsize=(5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    used = table[table[:, 0] > 0]
    axes.plot([0, 1], [0, 1], linestyle="--", color="grey")
    axes.plot(used[:, 1], used[:, 2], marker="o")
    for count, confidence, accuracy in used:
        axes.annotate(f"{int(count)}", (confidence, accuracy), textcoords="offset points", xytext=(4, -10))
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title="images per point")
    figure.savefig(path, dpi=100)
