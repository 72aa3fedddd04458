"""Initial weights, as the paper's code sets them (`CLIP.initialize_parameters`), from one seed."""

from __future__ import annotations

import numpy as np

from clip_common.config import ClipConfig, ResNetConfig
from clip_common.models.clip import CLIP


def initialise(model: CLIP, seed: int) -> None:
    """Fill a ResNet CLIP's parameters; what the paper's code leaves alone gets torch's defaults."""
    rng = np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        value = _initial(name, list(parameter.shape), model.config, rng)
        if value is not None:
            parameter.set_value(np.asarray(value, np.float32).reshape(parameter.shape))


def _initial(name: str, shape: list[int], config: ClipConfig, rng: np.random.Generator) -> np.ndarray | None:
    if name == "logit_scale" or name.endswith(("_mean", "_variance")):
        return None  # the model sets them: log(1 / 0.07), zero, one
    if name.endswith("bn3.weight") and ".layer" in f".{name}":
        return np.zeros(shape)  # each residual block begins as the identity
    if name.endswith("bias"):
        return np.zeros(shape)
    if len(shape) == 4:  # a convolution: uniform within 1 / sqrt(fan in)
        bound = float(np.prod(shape[1:])) ** -0.5
        return rng.uniform(-bound, bound, shape)
    if len(shape) == 1:
        return np.ones(shape)  # weights of norms
    return rng.normal(0, _deviation(name, config), shape)


def _deviation(name: str, config: ClipConfig) -> float:
    """Standard deviation of a matrix."""
    width, layers = config.text.width, config.text.layers
    if name.startswith("visual."):
        if not isinstance(config.vision, ResNetConfig):
            raise NotImplementedError("the trainer initialises ResNets only")
        return config.vision.output_width**-0.5  # attention pool, and its positions
    if name == "token_embedding.weight":
        return 0.02
    if name == "positional_embedding":
        return 0.01
    if name.endswith("c_fc.weight"):
        return (2 * width) ** -0.5
    if name.endswith(("out_proj.weight", "c_proj.weight")):
        return width**-0.5 * (2 * layers) ** -0.5
    return width**-0.5  # in_proj, text_projection
