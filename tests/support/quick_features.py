"""Features without running the model, for tests of the code around it."""

from __future__ import annotations

from typing import Any

import numpy as np

from clip_common.predictor import Predictor


def quick_features(predictor: Predictor, pixels: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
    """Replaces `Predictor.encode_image`: the features are some of the image's pixels."""
    count = predictor.record.config.embed_dim
    return pixels.reshape(len(pixels), -1)[:, :: pixels[0].size // count][:, :count] + 2  # never all zeros
