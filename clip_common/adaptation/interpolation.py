"""Interpolation between the weights before and after training (Wortsman et al. 2022, WiSE-FT).

`alpha` 0 is the model before, 1 the fully adapted one. Between them, a model is often better than both, on
the images that it was adapted to and on others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..system.output import save_figure
from ..trainer.checkpoint import Arrays

ALPHAS = tuple(round(0.1 * step, 1) for step in range(11))


@dataclass(frozen=True)
class Point:
    """An interpolated model and its accuracy (for captions, mean recall at 1).

    Attributes:
        alpha: position between the weights before (0) and after (1).
        held_out: accuracy on held-out images, 0 to 1.
        reference: accuracy on the reference data set, 0 to 1; None without one.
    """

    alpha: float
    held_out: float
    reference: float | None


def mix(before: Arrays, after: Arrays, alpha: float) -> Arrays:
    """Interpolate linearly between two models of one architecture; float32."""
    return {name: np.asarray((1 - alpha) * before[name] + alpha * after[name], "float32") for name in before}


def best(points: list[Point]) -> Point:
    """The point of best held-out accuracy; among equal ones, the smallest alpha."""
    return max(points, key=lambda point: (point.held_out, -point.alpha))


def plot(points: list[Point], chosen: float, probe: float | None, path: Path) -> None:
    """Plot held-out accuracy against alpha, or against the accuracy on the reference, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    held_out = [point.held_out for point in points]
    reference = [point.reference for point in points if point.reference is not None]
    if reference:
        axes.plot(reference, held_out, marker="o")
        for point in points:
            axes.annotate(
                f"{point.alpha:g}",
                (point.reference or 0.0, point.held_out),
                textcoords="offset points",
                xytext=(6, -4),
            )
        axes.set(xlabel="accuracy on the reference", title="numbers: alpha, 0 before and 1 all adapted")
    else:
        axes.plot([point.alpha for point in points], held_out, marker="o")
        axes.axvline(chosen, linestyle=":", color="grey", label="chosen")
        axes.set(xlabel="alpha: 0 is before, 1 is all adapted")
    if probe is not None:
        axes.axhline(probe, linestyle="--", color="tab:orange", label="linear probe")
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    axes.set_ylabel("accuracy, held out")
    axes.grid(alpha=0.3)
    save_figure(figure, path)
