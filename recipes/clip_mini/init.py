"""Initial weights of a text tower, as in OpenAI's code (`CLIP.initialize_parameters`)."""

from __future__ import annotations

import numpy as np

from clip_common.config import TextConfig
from clip_common.models.clip import CLIP


def initialise(model: CLIP, seed: int) -> None:
    """Initialise the parameters of the text tower; the scale and the image tower are not changed."""
    rng = np.random.default_rng(seed)
    text = model.config.text
    assert isinstance(text, TextConfig)
    for name, parameter in model.named_parameters():
        if name != "logit_scale" and not name.startswith("visual."):
            value = _initial(name, list(parameter.shape), text, rng)
            parameter.set_value(np.asarray(value, np.float32))


def _initial(name: str, shape: list[int], text: TextConfig, rng: np.random.Generator) -> np.ndarray:
    if name.endswith("bias"):
        return np.zeros(shape)
    if len(shape) == 1:
        return np.ones(shape)  # weights of norms
    return rng.normal(0, _deviation(name, text), shape)


def _deviation(name: str, text: TextConfig) -> float:
    """The standard deviation for a parameter."""
    if name == "token_embedding.weight":
        return 0.02
    if name == "positional_embedding":
        return 0.01
    if name.endswith("c_fc.weight"):
        return (2 * text.width) ** -0.5
    if name.endswith(("out_proj.weight", "c_proj.weight")):
        return text.width**-0.5 * (2 * text.layers) ** -0.5
    return text.width**-0.5  # in_proj, text_projection
