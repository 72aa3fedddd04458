"""`python -m benchmarks.conditions WHAT`: figures of clip-hub in some conditions, as one line of JSON.

share       operations per second of ViT-B/32's image tower, as a share of the machine's best sgemm
neighbour   time of the image towers next to one other busy process, relative to alone
start       seconds of `hub run` beyond `import paddlehub`; weights and label embeddings are on disk
memory      peak memory of one `classify` beyond `import paddlehub`, relative to the float32 weights
precision   speed-up of ViT-B/32's image tower in bfloat16 and int8 over float32; and how much clip_mini's
            answers differ on its held-out images (`make mini-data`)
resizing    ms of Pillow's resizing and of the compiled one: alone, and when preparing 200 JPEG photographs
            in one and in two threads
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from clip_common.config import PRETRAINED, ClipConfig, Preprocessing, ViTConfig
from clip_common.engines.base import PRECISIONS
from clip_common.predictor import Predictor
from clip_common.preprocessing import resize
from clip_common.preprocessing.image import Preprocess
from clip_common.system import threads
from clip_common.text.prompts import prompts_for
from clip_common.weights.weights_file import write_safetensors
from recipes.clip_mini.data import DEFAULT_CACHE, Dataset, to_image
from recipes.clip_mini.splits import rows_of
from tests.parity import seeded

from .bench import EXAMPLES, Cell, in_turns, machine, photographs
from .peers import onnx_tower

SGEMM = ((2048, 2048, 2048), (400, 768, 3072), (400, 3072, 768), (1600, 768, 3072))
_ROUNDED = PRECISIONS[1:]
BIN = Path(sys.executable).parent
IMPORT = [sys.executable, "-c", "import paddlehub"]
# Ends by itself if its parent is killed.
BUSY = [sys.executable, "-c", "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"]


@contextmanager
def seeded_weights(name: str) -> Iterator[Path]:
    """A weights file with random values for a module; the values do not affect the time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.safetensors"
        write_safetensors(seeded.state(PRETRAINED[name].config), path, {})
        yield path


def operations(config: ClipConfig) -> int:
    """The number of multiplications and additions of a ViT image tower (`engines/graph`) for one image.

    It counts matrix products and attention, not norms, softmax and activations (about one percent).
    """
    vision = config.vision
    assert isinstance(vision, ViTConfig)
    width, patch, heads = vision.width, vision.patch_size, vision.heads
    tokens = (config.image_resolution // patch) ** 2 + 1
    mlp = 8 * width * width
    block = tokens * (4 * width * width + mlp) + 2 * tokens * tokens * width
    # One query: four projections, attention between the heads and the sequence, and the MLP of one token.
    last = 4 * width * width + 2 * heads * tokens * width + mlp
    conv1 = (tokens - 1) * 3 * patch * patch * width
    return 2 * (conv1 + (vision.layers - 1) * block + last + width * config.embed_dim)


def sgemm_peak() -> tuple[float, str]:
    """Speed of the fastest float32 matrix product of all libraries, in operations per second; its name."""
    best = (0.0, "")
    for m, k, n in SGEMM:
        a, b = (np.random.default_rng(0).standard_normal(shape, np.float32) for shape in ((m, k), (k, n)))
        for name, run in _multiplications(a, b).items():
            seconds = min(in_turns({name: run}, 10)[name])
            best = max(best, (2 * m * k * n / seconds, f"{name}, {m} x {k} x {n}"))
    return best


def _multiplications(a: np.ndarray, b: np.ndarray) -> dict[str, Callable[[], object]]:
    import paddle

    left, right = paddle.to_tensor(a), paddle.to_tensor(b)
    found: dict[str, Callable[[], object]] = {
        "numpy": lambda: a @ b,
        "paddle": lambda: paddle.matmul(left, right),
        "onnxruntime": _onnxruntime(a, b),
    }
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads.count())
        ours, theirs = torch.from_numpy(a), torch.from_numpy(b)
        found["torch"] = lambda: ours @ theirs
    return found


def _onnxruntime(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
    """A product with a constant, which ONNX Runtime packs once, like the weights of a model."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    given = helper.make_tensor_value_info("a", TensorProto.FLOAT, list(a.shape))
    made = helper.make_tensor_value_info("c", TensorProto.FLOAT, [len(a), b.shape[1]])
    graph = helper.make_graph([node], "sgemm", [given], [made], [numpy_helper.from_array(b, "b")])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sgemm.onnx"
        onnx.save(model, path)
        return partial(onnx_tower(path, threads.count()), a)


def share(_: argparse.Namespace) -> dict[str, object]:
    """The tower's operations per second divided by the best sgemm's."""
    record = PRETRAINED["clip_vit_b32"]
    with seeded_weights(record.name) as path:
        engine = Predictor(record, path).engine()
        threads.configure()
        peak, whose = sgemm_peak()
        figures: dict[str, object] = {"sgemm, GFLOP/s": peak / 1e9, "by": whose}
        figures["operations of an image, GFLOP"] = operations(record.config) / 1e9
        for batch in (8, 32):
            pixels = np.zeros([batch, 3, 224, 224], np.float32)
            seconds = float(np.median(in_turns({"": partial(engine.encode_image, pixels)}, 7)[""]))
            figures[f"batch {batch}"] = batch * operations(record.config) / seconds / peak
    return figures


def neighbour(arguments: argparse.Namespace) -> dict[str, object]:
    """Time of a batch of eight next to a busy process, divided by the time alone; taking turns."""
    figures: dict[str, object] = {}
    for name in ("clip_vit_b32", "clip_rn50"):
        with seeded_weights(name) as path:
            engine = Predictor(PRETRAINED[name], path).engine()
            pixels = np.zeros([8, 3, 224, 224], np.float32)

            cell: Cell = {"": partial(engine.encode_image, pixels)}
            alone: list[float] = []
            busy: list[float] = []
            for _turn in range(arguments.rounds):
                alone += in_turns(cell, 2)[""]
                other = subprocess.Popen(BUSY)
                try:
                    busy += in_turns(cell, 2)[""]
                finally:
                    other.kill()
                    other.wait()
            figures[name] = float(np.median(busy) / np.median(alone))
    return figures


def _run(command: list[str]) -> tuple[float, int]:
    """Run a command; return its seconds and its peak resident memory in bytes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{command} ended with status {status}")
    return seconds, usage.ru_maxrss * 1024


def _hub_run(weights: Path) -> list[str]:
    image = str(EXAMPLES / "photo_cat.jpg")
    return [str(BIN / "hub"), "run", "clip_vit_b32", "--input_path", image, "--weights", str(weights)]


def start(arguments: argparse.Namespace) -> dict[str, object]:
    """Medians in seconds, taking turns; the embeddings of ImageNet's thousand labels are on disk."""
    with seeded_weights("clip_vit_b32") as path:
        _run(_hub_run(path))  # compiles, and encodes the labels
        turns = [(_run(IMPORT)[0], _run(_hub_run(path))[0]) for _ in range(arguments.rounds)]
    imports, runs = (float(np.median(column)) for column in zip(*turns, strict=True))
    return {"import paddlehub": imports, "hub run": runs, "difference": runs - imports}


def memory(_: argparse.Namespace) -> dict[str, object]:
    """Peak memory in MiB; and the part beyond `import paddlehub` divided by the float32 weights."""
    with seeded_weights("clip_vit_b32") as path:
        _run(_hub_run(path))
        weights = 4 * sum(value.size for value in seeded.state(PRETRAINED["clip_vit_b32"].config).values())
        imported, ran = _run(IMPORT)[1], _run(_hub_run(path))[1]
    figures = {"import paddlehub": imported / 2**20, "hub run": ran / 2**20, "weights": weights / 2**20}
    return {**figures, "beyond it, of the weights": (ran - imported) / weights}


def precision(arguments: argparse.Namespace) -> dict[str, object]:
    """The speed-up of each lower precision, and how much clip_mini's answers differ from float32."""
    figures: dict[str, object] = {}
    with seeded_weights("clip_vit_b32") as path:
        predictor = Predictor(PRETRAINED["clip_vit_b32"], path, engine="openvino")
        engines = {name: predictor.with_options(precision=name).engine() for name in PRECISIONS}
        for batch in (1, 8, 32):
            pixels = np.zeros([batch, 3, 224, 224], np.float32)
            cell: Cell = {name: partial(engine.encode_image, pixels) for name, engine in engines.items()}
            seconds = {name: np.median(turns) for name, turns in in_turns(cell, arguments.rounds).items()}
            for name in _ROUNDED:
                figures[f"{name}, batch {batch}"] = float(seconds["float32"] / seconds[name])
    return figures | {name: _drift(name) for name in _ROUNDED}


def _drift(precision: str) -> dict[str, object]:
    """Compare a precision with float32 on clip_mini's held-out images."""
    data = Dataset.open(DEFAULT_CACHE / "data")
    rows = np.concatenate([rows_of(data.captions, split) for split in ("style", "concept", "clip-art")])
    (exact, best), (rounded, taken) = (_answers(name, data, rows) for name in ("float32", precision))
    cosines, agrees = (exact * rounded).sum(axis=1), best == taken
    labels = {label.lower() for label in prompts_for(PRETRAINED["clip_mini"], None, None).labels}
    shown = np.array([data.captions[row].name.lower() in labels for row in rows])
    return {
        "pictures": len(rows),
        "cosine, mean": float(cosines.mean()),
        "cosine, least": float(cosines.min()),
        "top-1 agreement": float(agrees.mean()),
        "images of a label": int(shown.sum()),
        "top-1 agreement on them": float(agrees[shown].mean()),
    }


def _answers(precision: str, data: Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """clip_mini's embeddings of images, [N, d], and the index of the best default label for each, [N]."""
    predictor = Predictor(PRETRAINED["clip_mini"], precision=precision, engine="openvino")
    images = [to_image(data.images[row]) for row in rows]
    features = predictor.embed(images=images)["images"]
    assert features is not None
    labels = predictor.label_embeddings(predictor.prompts(None, None))
    return features, (features @ labels.T).argmax(axis=1)


def resizing(arguments: argparse.Namespace) -> dict[str, object]:
    """Medians in milliseconds, taking turns, and their ratio."""
    ways = {"Pillow": resize.Compiled(worth=10**18), "compiled": resize.Compiled()}
    ways["compiled"].load()
    prepare, files = Preprocess(224, Preprocessing()), photographs(200)
    work: dict[str, Callable[[], object]] = {}
    with Image.open(EXAMPLES / "photo_cat.jpg") as photo:
        for width, height in ((1200, 900), (2000, 1500), (4000, 3000)):
            image = photo.convert("RGB").resize((width, height))
            work[f"resizing {width} x {height}"] = partial(resize.resize_and_crop, image, 224)
    for count in (1, 2):
        work[f"{len(files)} photographs, {count} threads"] = partial(_prepare_all, prepare, files, count)

    def with_way(name: str, run: Callable[[], object]) -> None:
        resize.compiled = ways[name]
        run()

    figures: dict[str, object] = {}
    for what, run in work.items():
        turns = in_turns({name: partial(with_way, name, run) for name in ways}, arguments.rounds)
        found = {name: float(np.median(seconds)) * 1000 for name, seconds in turns.items()}
        figures[what] = {**found, "ratio": found["Pillow"] / found["compiled"]}
    return figures


def _prepare_all(prepare: Preprocess, files: list[bytes], count: int) -> None:
    with ThreadPoolExecutor(count) as pool:
        for _ in pool.map(lambda file: prepare.pixels(file, "photograph"), files):
            pass


CONDITIONS = {
    "share": share,
    "neighbour": neighbour,
    "start": start,
    "memory": memory,
    "precision": precision,
    "resizing": resizing,
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.conditions",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("what", choices=CONDITIONS)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    figures = CONDITIONS[arguments.what](arguments)
    print(json.dumps({"what": arguments.what, **figures, "machine": machine()}))


if __name__ == "__main__":
    main()
