"""`python -m benchmarks.chart`: draws all of `benchmarks/results/` as one image, with a panel for each CPU.

Folder names begin with the CPU and may end with the topic of the run: `amd_zen4`, `amd_zen4_photos`. If two
runs have the same cell, the one with the faster best peer is used: in the other the machine had other load.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Cells = dict[str, dict[str, float]]
"""Median seconds of each contender, by cell."""

RESULTS = Path(__file__).resolve().parent / "results"
TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "benchmarks.png"
_TOWER = ", image tower, batch 8"
_LOOKS = {"onnxruntime": ("o", "#4c72b0"), "openvino": ("D", "#dd8452"), "torch": ("^", "#8c8c8c")}
_NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch": "torch, OpenAI's code"}


def by_cpu(folder: Path) -> dict[str, Cells]:
    """The results of each CPU, such as "AMD Zen 4"."""
    found: dict[str, Cells] = {}
    for path in sorted(folder.glob("*/results.json")):
        cells = found.setdefault(cpu_of(path.parent.name), {})
        for name, seconds in json.loads(path.read_text("utf-8"))["seconds"].items():
            medians = {who: float(np.median(times)) for who, times in seconds.items()}
            if name not in cells or _best_peer(medians) < _best_peer(cells[name]):
                cells[name] = medians
    return found


def cpu_of(folder: str) -> str:
    """The CPU that a folder's name begins with: "AMD Zen 4" for `amd_zen4_photos`."""
    maker, architecture = folder.split("_")[:2]
    letters = architecture.rstrip("0123456789")
    return f"{maker.upper()} {letters.capitalize()} {architecture[len(letters) :]}".strip()


def _best_peer(medians: dict[str, float]) -> float:
    return min((seconds for who, seconds in medians.items() if who != "ours"), default=float("inf"))


def draw(results: dict[str, Cells], target: Path) -> None:
    """Draw a row for each image encoder: times in batches of eight, relative to ours."""
    rows = {cpu: _rows(cells) for cpu, cells in results.items()}
    rows = {cpu: found for cpu, found in rows.items() if found}
    heights = [len(found) + 0.6 for found in rows.values()]
    figure = Figure(figsize=(8, 1.9 + 0.42 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (cpu, found) in zip(panels, rows.items(), strict=True):
        _panel(axes, cpu, found)
    panels[-1].set_xlabel("time of an image beside clip-hub's: further right is slower")
    figure.suptitle("Image encoders, float32, two threads, batches of 8", fontsize=12)
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)


def _rows(cells: Cells) -> dict[str, dict[str, float]]:
    """Seconds per image by image encoder and contender, the fastest encoder first."""
    found = {
        name.removesuffix(_TOWER): {who: seconds / 8 for who, seconds in medians.items()}
        for name, medians in cells.items()
        if name.endswith(_TOWER)
    }
    return dict(sorted(found.items(), key=lambda row: row[1]["ours"]))


def _panel(axes: Axes, cpu: str, rows: dict[str, dict[str, float]]) -> None:
    places = range(len(rows))
    for place, seconds in zip(places, rows.values(), strict=True):
        axes.plot([1, max(seconds.values()) / seconds["ours"]], [place] * 2, color="#dddddd", zorder=1)
    axes.scatter([1] * len(rows), places, s=90, marker="s", color="#2a9d4a", label="clip-hub", zorder=3)
    for who, (marker, colour) in _LOOKS.items():
        peers = [row.get(who, np.nan) / row["ours"] for row in rows.values()]
        axes.scatter(peers, places, s=60, marker=marker, color=colour, label=_NAMES[who], zorder=2)
    axes.set_yticks(places, [f"{name}, {row['ours'] * 1000:.0f} ms" for name, row in rows.items()])
    axes.set(ylim=(len(rows) - 0.5, -0.5))
    axes.set_title(cpu, loc="left", fontweight="bold")
    axes.grid(axis="x", color="#eeeeee")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--output", type=Path, default=TARGET)
    arguments = parser.parse_args()
    draw(by_cpu(arguments.results), arguments.output)


if __name__ == "__main__":
    main()
