"""Create models, with or without weights."""

from __future__ import annotations

import paddle

from ..config import RN50, RN101, VIT_B32, ClipConfig
from ..errors import WeightsError
from ..weights.weights_file import WeightsFile, read_openai
from .clip import CLIP
from .dynamic_graph import dynamic_graph


def load_model(weights: WeightsFile) -> CLIP:
    """Create the model of a weights file and load it, strictly. Eval mode, float32.

    Raises:
        WeightsError: tensors do not fit, or the file was replaced in the meantime; the message names them.
    """
    state = read_openai(weights.path)
    with dynamic_graph():
        model = empty_model(weights.record.config)
        try:
            model.take_openai(state)
        except WeightsError as error:
            raise WeightsError(f"{weights.path}: {error}") from error
        model.eval()
    weights.require_unchanged()
    return model


def empty_model(config: ClipConfig) -> CLIP:
    """Create a model without allocating its weights."""
    with dynamic_graph(), paddle.LazyGuard():
        return CLIP(config)


def build_rn50_model() -> CLIP:
    """An uninitialised RN50, for `load_dict`."""
    return CLIP(RN50)


def build_rn101_model() -> CLIP:
    """An uninitialised RN101, for `load_dict`."""
    return CLIP(RN101)


def build_vit_model() -> CLIP:
    """An uninitialised ViT-B/32, for `load_dict`."""
    return CLIP(VIT_B32)
