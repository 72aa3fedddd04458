"""Features without the model, for tests of what happens around it."""

from __future__ import annotations

from typing import Any

import numpy as np

from clip_common.predictor import Predictor


def quick_features(predictor: Predictor, pixels: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
    """In place of `Predictor.encode_image`: of an image's own pixels as many as a feature has numbers."""
    count = predictor.record.config.embed_dim
    return pixels.reshape(len(pixels), -1)[:, :: pixels[0].size // count][:, :count] + 2  # never all zeros
