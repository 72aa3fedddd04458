"""Writes the graph of a tower for a config, and creates test inputs for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from ...config import BertConfig, ClipConfig, EfficientNetConfig, ViTConfig
from .bert_text import bert_text
from .builder import Graph, Tensor
from .causal_text import causal_text
from .efficientnet import efficientnet
from .resnet import resnet
from .vit import vit

TowerName = Literal["image", "text"]
TOWERS: tuple[TowerName, ...] = ("image", "text")


def write_tower(
    config: ClipConfig,
    state: Mapping[str, np.ndarray],
    tower: TowerName,
    folder: Path,
    kind: Callable[[Path, Mapping[str, np.ndarray]], Graph] = Graph,
) -> Path:
    """Write a tower's graph and weights into a folder, as `<tower>.onnx` and `<tower>.onnx.data`.

    The inputs are pixels, float32 [N, 3, R, R], for the image tower; token ids, int64 [N, L], for a BERT; a
    prefix [B] and suffixes [N, L], int64, for the causal text tower, see `causal_text.py`. The output is
    features, float32 [N, embed_dim], not normalised.

    Args:
        state: all tensors of the model, with OpenAI's names and the shapes of `weights/schema.py`.
        kind: creates the graph; `int8.py` has other kinds.

    Returns:
        The path of the graph.
    """
    with kind(folder / f"{tower}.onnx", state) as graph:
        features = _image(graph, config) if tower == "image" else _text(graph, config)
        return graph.save(features, config.embed_dim)


def _image(graph: Graph, config: ClipConfig) -> Tensor:
    size = config.image_resolution
    image = graph.input("image", np.float32, ["N", 3, size, size])
    if isinstance(config.vision, ViTConfig):
        return vit(graph, image, config.vision, config.activation)
    if isinstance(config.vision, EfficientNetConfig):
        return efficientnet(graph, image, config.vision, size)
    return resnet(graph, image, config.vision)


def _text(graph: Graph, config: ClipConfig) -> Tensor:
    if isinstance(config.text, BertConfig):
        return bert_text(graph, config.text)
    return causal_text(graph, config.text, config.activation)


def probe(config: ClipConfig, tower: TowerName) -> list[np.ndarray]:
    """Test inputs for a tower: two random images, or three texts of different lengths."""
    rng = np.random.default_rng(0)
    if tower == "image":
        size = config.image_resolution
        return [rng.standard_normal([2, 3, size, size], np.float32)]
    ids = rng.integers(1, config.text.vocab_size - 1, [3, 9])
    if isinstance(config.text, BertConfig):
        ids[1, 7:], ids[2, 4:] = 0, 0  # padding
        return [ids]
    ids[:, :3] = ids[0, :3]
    ids[range(3), [8, 4, 3]] = config.text.vocab_size - 1  # the end token
    return [ids[0, :3], ids[:, 3:]]
