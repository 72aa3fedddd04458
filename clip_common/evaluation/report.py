"""Write the results of an evaluation as a table, as JSON, and as plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import RequestError
from ..system.file_names import encodable, printable
from ..system.output import save_figure, write_text
from ..visualize import text_style
from .evaluate import Figures
from .thresholds import Fit, Fitted

_FIGURES = "figures.json"
_MOST_NAMES = 40  # maximum number of names that are readable in a plot
_MOST_DOTS = 1000  # maximum number of dots per label
_OF_A_THRESHOLD = {
    "average_precision": "average precision",
    "threshold": "threshold",
    "precision": "precision",
    "recall": "recall",
    "held_back_precision": "precision, held back",
    "held_back_recall": "recall, held back",
}


def as_table(figures: dict[str, Figures]) -> str:
    """A Markdown table with one row per number of each task."""
    lines = ["| task | figure | value |", "| --- | --- | ---: |"]
    for task, found in figures.items():
        for name, value in found.numbers.items():
            shown = f"{value:.4f}" if isinstance(value, float) and value < 1000 else str(value)
            lines.append(f"| {task} | {name} | {shown} |")
    return "\n".join(lines)


def require_own(folder: Path) -> None:
    """Check that a `figures.json` in the folder was written by `evaluate`, and not by `adapt`.

    Raises:
        RequestError: it was written by something else, and would be overwritten.
    """
    path = folder / _FIGURES
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError):
        document = None
    tasks = document.values() if isinstance(document, dict) else [document]
    if not all(isinstance(task, dict) and "errors" in task for task in tasks):
        raise RequestError(
            f"--output_dir: {path} exists and was not written by `evaluate`: choose another folder"
        )


def write(figures: dict[str, Figures], folder: Path) -> None:
    """Write `figures.json`, `figures.md`, and each task's plots: confusion, calibration, precision."""
    document: dict[str, dict[str, Any]] = {}
    for task, found in figures.items():
        document[task] = {**found.numbers, "errors": found.errors}
        if found.average_precision:
            document[task]["average precision"] = found.average_precision
    shown = encodable(json.dumps(document, indent=1, ensure_ascii=False))  # as a person reads it
    write_text(folder / _FIGURES, shown)
    write_text(folder / "figures.md", as_table(figures) + "\n")
    for task, found in figures.items():
        stem = task.replace(" ", "_")
        if found.confusion is not None:
            _confusion(found.confusion, found.classes, folder / f"{stem}_confusion.png")
        if found.calibration is not None:
            _calibration(found.calibration, folder / f"{stem}_calibration.png")
        if found.average_precision:
            _average_precision(found.average_precision, folder / f"{stem}_average_precision.png")


def thresholds_table(fitted: Fitted) -> str:
    """A Markdown table with one row per label that has a threshold, and the means."""
    names = list(_OF_A_THRESHOLD.values())
    lines = [f"| label | images with it | {' | '.join(names)} |", "| --- |" + " ---: |" * (len(names) + 1)]
    rows = [[getattr(fit, name) for name in _OF_A_THRESHOLD] for fit in fitted.fits.values()]
    for (label, fit), row in zip(fitted.fits.items(), rows, strict=True):
        lines.append(f"| {printable(label)} | {fit.positives} | {_numbers(row)} |")
    columns = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    means = [float(np.mean(column)) if column else None for column in columns]
    means[list(_OF_A_THRESHOLD).index("threshold")] = None  # a mean threshold has no meaning
    return "\n".join([*lines, f"| mean | | {_numbers(means)} |"])


def _numbers(row: Sequence[float | None]) -> str:
    """Format the cells of a row; None gives an empty cell."""
    return " | ".join("" if value is None else f"{value:.4f}" for value in row)


def draw_thresholds(fitted: Fitted, path: Path) -> None:
    """Plot the cosines of images with and without each label, its threshold, precision and recall, as PNG.

    With many labels, only those with the worst thresholds are drawn (by F1 on held-back images).
    """
    worst = sorted(fitted.fits, key=lambda label: _f1(fitted.fits[label]))[:_MOST_NAMES]
    labels = [label for label in fitted.fits if label in set(worst)]
    figure = Figure(figsize=(11, 1.6 + 0.45 * len(labels)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    _draw_cosines(left, fitted, labels)
    _draw_precision_and_recall(right, [fitted.fits[label] for label in labels])
    title = f"the {len(labels)} worst of {len(fitted.fits)} labels" if len(labels) < len(fitted.fits) else ""
    figure.suptitle(title)
    for axes in (left, right):
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)
    save_figure(figure, path)


def _draw_cosines(axes: Axes, fitted: Fitted, labels: list[str]) -> None:
    """One row per label: a dot per image, and a line at the threshold."""
    rng = np.random.default_rng(0)
    for row, label in enumerate(labels):
        i = fitted.classes.index(label)
        for truth, color, above in ((False, "#b0b0b0", -0.2), (True, "#4c72b0", 0.2)):
            scores = fitted.cosines[fitted.truth[:, i] == truth, i]
            scores = scores if len(scores) <= _MOST_DOTS else rng.choice(scores, _MOST_DOTS, replace=False)
            heights = row - above + rng.uniform(-0.13, 0.13, len(scores))
            name = ("images with the label" if truth else "others") if row == 0 else None
            axes.scatter(scores, heights, s=9, color=color, alpha=0.6, linewidths=0, label=name)
        threshold = fitted.fits[label].threshold
        axes.plot(
            [threshold] * 2, [row - 0.42, row + 0.42], color="#c44e52", label=None if row else "threshold"
        )
    names = [f"{printable(label)} ({fitted.fits[label].positives})" for label in labels]
    axes.set_yticks(range(len(labels)), names, **text_style(*names))
    axes.set(xlabel="cosine", ylim=(len(labels) - 0.5, -0.5))


def _draw_precision_and_recall(axes: Axes, fits: list[Fit]) -> None:
    """Two bars per label."""
    rows = np.arange(len(fits))
    for shift, name, color, values in (
        (-0.2, "precision, held back", "#55a868", [fit.held_back_precision or 0.0 for fit in fits]),
        (0.2, "recall, held back", "#8172b2", [fit.held_back_recall for fit in fits]),
    ):
        bars = axes.barh(rows + shift, values, height=0.36, color=color, label=name)
        axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=3, fontsize=8)
    axes.set(xlim=(0, 1.15), xticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _f1(fit: Fit) -> float:
    precision, recall = fit.held_back_precision or 0.0, fit.held_back_recall
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


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
    save_figure(figure, path)


def _average_precision(precisions: dict[str, float], path: Path) -> None:
    """Plot a bar per label, best first; with many labels, only the worst."""
    ranked = sorted(precisions, key=lambda label: -precisions[label])[-_MOST_NAMES:]
    figure = Figure(figsize=(7, 1 + 0.3 * len(ranked)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    bars = axes.barh(range(len(ranked)), [precisions[label] for label in ranked], color="#4c72b0")
    axes.bar_label(bars, [f"{precisions[label]:.2f}" for label in ranked], padding=3)
    names = [printable(label) for label in ranked]
    axes.set_yticks(range(len(names)), names, **text_style(*names))
    axes.set(xlabel="average precision", xlim=(0, 1.1), ylim=(len(names) - 0.5, -0.5))
    save_figure(figure, path)


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
    save_figure(figure, path)
