"""`make bench`: compares clip-hub with other ways to run CLIP (peers), taking turns in one run.

Writes `results.json`, `results.md` and `results.png` into `--output`, by default a folder named after the
CPU. A ratio is the best peer's time divided by ours: above 1, clip-hub is faster than every peer. Everything
runs in float32. Larger modules have fewer cells by default: one round takes minutes. The last cells are
commands and a server, which have no peers, see `commands.py`.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from clip_common.config import PRETRAINED, Pretrained
from clip_common.engines.base import Engine
from clip_common.predictor import Predictor
from clip_common.system import cpu, threads
from clip_common.text.prompts import prompts_for
from clip_common.text.tokenizer import tokenize, tokenizer_of
from clip_common.weights.weights_file import write_safetensors
from clip_common.zero_shot.scoring import l2_normalize
from tests.parity import seeded

from .commands import command_cells, server_cells
from .peers import Peer, Tower, peers, prepare

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
Cell = dict[str, Callable[[], object]]
USUAL = {"batches": [1, 8, 32], "labels": 1000, "photos": 200, "rounds": 5}
LARGE = {"batches": [1, 8], "labels": 200, "photos": 0, "rounds": 3}
MODULES = {
    "clip_vit_b32": USUAL,
    "clip_rn50": USUAL,
    "clip_rn101": USUAL,
    "clip_vit_b16": LARGE,
    "clip_vit_l14": LARGE,
    "clip_cn_vit_b16": LARGE,
}


def in_turns(cell: Cell, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender for each round, taking turns, after one round for warm-up."""
    times: dict[str, list[float]] = {name: [] for name in cell}
    for number in range(rounds + 1):
        for name, run in cell.items():
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
    return times


def image_cells(engine: Engine, others: list[Peer], size: int, batches: list[int]) -> dict[str, Cell]:
    """The image tower at several batch sizes."""
    ours, cells = engine, {}
    for batch in batches:
        pixels = np.random.default_rng(0).standard_normal([batch, 3, size, size], np.float32)
        cell: Cell = {"ours": partial(ours.encode_image, pixels)}
        cell |= {peer.name: partial(peer.image, pixels) for peer in others}
        cells[f"image tower, batch {batch}"] = cell
    return cells


def label_cells(record: Pretrained, engine: Engine, others: list[Peer], count: int) -> dict[str, Cell]:
    """Encoding labels with one template, in two cells: peers with texts padded to the whole context, as users
    call them, and peers with trimmed texts."""
    config = record.config.text
    texts = prompts_for(record, None, None).texts()[:count]
    ids = tokenize(texts, config.context_length, tokenizer=tokenizer_of(config))
    ours, length = engine, (ids != 0).sum(axis=1)
    order = np.argsort(length, kind="stable")
    trimmed = [ids[rows, : length[rows].max()] for rows in np.array_split(order, max(1, count // 32))]
    padded = np.array_split(ids, max(1, count // 32))
    run_ours: Cell = {"ours": partial(ours.encode_text, ids, 32)}
    return {
        f"{len(texts)} labels, peers padded to {config.context_length}": run_ours
        | {peer.name: partial(_each, peer.text, padded) for peer in others},
        f"{len(texts)} labels, peers trimmed": run_ours
        | {peer.name: partial(_each, peer.trimmed_text, trimmed) for peer in others if peer.trimmed_text},
    }


def _each(tower: Tower, batches: list[np.ndarray]) -> None:
    for batch in batches:
        tower(batch)


def photo_cell(predictor: Predictor, others: list[Peer], labels: list[str], photos: list[bytes]) -> Cell:
    """From JPEG files to ranked labels; the labels are already encoded for all contenders."""
    rng = np.random.default_rng(0)
    vectors = l2_normalize(rng.standard_normal([len(labels), predictor.record.config.embed_dim])).T

    def theirs(peer: Peer) -> None:
        for start in range(0, len(photos), 32):
            opened = [Image.open(io.BytesIO(photo)) for photo in photos[start : start + 32]]
            pixels = np.stack([prepare(image, predictor.record.config) for image in opened])
            (l2_normalize(peer.image(pixels)) @ vectors).argsort(axis=1)

    cell: Cell = {"ours": partial(predictor.classify, images=photos, labels=labels)}
    return cell | {peer.name: partial(theirs, peer) for peer in others}


def photographs(count: int) -> list[bytes]:
    """JPEG photographs of mixed sizes up to 12 megapixels, made from two of `examples/`."""
    made = []
    for number in range(count):
        with Image.open(EXAMPLES / ("photo_cat.jpg", "photo_coffee.jpg")[number % 2]) as image:
            width = (640, 1024, 1600, 2400, 4000)[number % 5]
            file = io.BytesIO()
            image.resize((width, width * 3 // 4)).save(file, "JPEG", quality=90)
            made.append(file.getvalue())
    return made


def bench(
    record: Pretrained, arguments: argparse.Namespace, folder: Path
) -> dict[str, dict[str, list[float]]]:
    """Measure all cells of one module; returns seconds by cell and contender."""
    path = folder / f"{record.name}.safetensors"
    write_safetensors(seeded.state(record.config), path, {"module": record.name})
    predictor = Predictor(record, path)
    engine = predictor.engine()
    others = peers(record.config, folder / record.name, threads.count())
    chosen = settings(record.name, arguments)
    cells = image_cells(engine, others, record.config.image_resolution, chosen["batches"])
    if chosen["labels"]:
        cells |= label_cells(record, engine, others, chosen["labels"])
    if chosen["photos"]:
        names = prompts_for(record, None, None).labels[:1000]
        cells[f"{chosen['photos']} JPEG photographs"] = photo_cell(
            predictor, others, list(dict.fromkeys(names)), photographs(chosen["photos"])
        )
    return {
        f"{record.config.name}, {name}": in_turns(cell, chosen["rounds"])
        for name, cell in tqdm(cells.items(), desc=record.name, unit="cell")
    }


def settings(module: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings for a module: from the command line, else its defaults."""
    given = {name: getattr(arguments, name) for name in USUAL}
    return MODULES.get(module, LARGE) | {name: value for name, value in given.items() if value is not None}


def table(times: dict[str, dict[str, list[float]]]) -> str:
    """Medians in milliseconds and ratios, as Markdown."""
    names = list(dict.fromkeys(name for cell in times.values() for name in cell))
    lines = [f"| cell, ms | {' | '.join(names)} | ratio |", "| --- |" + " ---: |" * (len(names) + 1)]
    for cell, found in times.items():
        medians = {name: float(np.median(seconds)) * 1000 for name, seconds in found.items()}
        shown = [f"{medians[name]:.1f}" if name in medians else "" for name in names]
        beside = f"{ratio(found):.2f}" if len(found) > 1 else ""
        lines.append(f"| {cell} | {' | '.join(shown)} | {beside} |")
    ratios = [ratio(found) for cell, found in times.items() if "image tower" in cell]
    if not ratios:
        return "\n".join(lines)
    lines.append(f"\nGeometric mean of the image tower's ratios: {np.exp(np.mean(np.log(ratios))):.2f}")
    return "\n".join(lines)


def ratio(found: dict[str, list[float]]) -> float:
    """The best peer's median time divided by ours."""
    best = min(float(np.median(seconds)) for name, seconds in found.items() if name != "ours")
    return best / float(np.median(found["ours"]))


def plot(times: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Draw the ratios as bars."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ratios = {cell: ratio(found) for cell, found in times.items() if len(found) > 1}
    figure = Figure(figsize=(9, 1 + 0.4 * len(ratios)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.barh(list(ratios), list(ratios.values()))
    axes.axvline(1, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("best peer's time / ours")
    figure.savefig(path)


def machine() -> dict[str, object]:
    """The machine of this run: CPU, vector instructions, threads."""
    wide = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in cpu.features()]
    return {
        "cpu": _of_cpu("model name") or platform.processor(),
        "instructions": wide,
        "threads": threads.count(),
    }


def _of_cpu(what: str) -> str:
    """A field of the kernel's description of the CPU, such as "model name"."""
    lines = cpu.description().splitlines()
    line = next((line for line in lines if line.partition(":")[0].strip() == what), "")
    return line.partition(":")[2].strip()


def folder_name() -> str:
    """A folder name for this CPU's results, from its maker, family and model."""
    maker = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}.get(_of_cpu("vendor_id"), "other")
    return f"{maker}_family{_of_cpu('cpu family')}_model{_of_cpu('model')}"


def commands(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Measure the cells of commands and of a server."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = {cell: in_turns(run, rounds) for cell, run in tqdm(command_cells(folder).items(), "commands")}
        with server_cells(folder) as cells:
            return times | {cell: in_turns(run, rounds) for cell, run in tqdm(cells.items(), "server")}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results") / folder_name())
    parser.add_argument("--modules", nargs="*", default=list(MODULES), choices=PRETRAINED, metavar="NAME")
    parser.add_argument("--batches", type=int, nargs="*", help="of the image tower; 1 8 32, or 1 8")
    parser.add_argument("--labels", type=int, help="1000, or 200; 0 leaves them out")
    parser.add_argument("--photos", type=int, help="200, or 0, which leaves them out")
    parser.add_argument("--rounds", type=int, help="5, or 3")
    parser.add_argument("--no_commands", action="store_true", help="leave commands and the server out")
    arguments = parser.parse_args()
    times: dict[str, dict[str, list[float]]] = {}
    for name in arguments.modules:
        with tempfile.TemporaryDirectory() as folder:
            times |= bench(PRETRAINED[name], arguments, Path(folder))
    if not arguments.no_commands:
        times |= commands(arguments.rounds or 3)
    arguments.output.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine(), "python": sys.version.split()[0], "seconds": times}
    (arguments.output / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    text = f"{json.dumps(machine())}\n\n{table(times)}\n"
    (arguments.output / "results.md").write_text(text)
    plot(times, arguments.output / "results.png")
    print(text)


if __name__ == "__main__":
    main()
