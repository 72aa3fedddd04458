"""The API of ranchlai/clip.paddle, from which this project started: Paddle tensors in, Paddle tensors out.

Scripts written for it only change their import:

    from clip_common import build_vit_model, tokenize, transform
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import paddle
from paddle import Tensor
from PIL import Image

from .config import VIT_B32, Preprocessing, pretrained
from .models.clip import CLIP
from .models.factory import build_rn50_model, build_rn101_model, build_vit_model, load_model
from .preprocessing.image import Preprocess
from .text import tokenizer
from .text.tokenizer import tokenizer_of
from .weights.locate import find

__all__ = ["build_rn50_model", "build_rn101_model", "build_vit_model", "load", "tokenize", "transform"]

_PREPROCESS = Preprocess(VIT_B32.image_resolution, Preprocessing())


def load(name: str, weights: str | Path | None = None) -> CLIP:
    """Load a module's model with its weights, in eval mode and float32.

    Args:
        name: the module, such as "clip_vit_b32".
        weights: path of a weights file of any supported format, or the tag of published weights. Default:
            the module's own weights, from its bundle, the cache, or a download.

    Raises:
        RequestError: unknown module.
        WeightsError: weights are not available, damaged, or do not fit the model.

    Examples:
        >>> load("clip_mini").encode_text(tokenize(["a dog", "a cat"])).shape[0]
        2
    """
    return load_model(find(pretrained(name), weights))


def tokenize(
    texts: str | Iterable[str],
    context_length: int | None = None,
    truncate: bool = False,
    model: str = "clip_vit_b32",
) -> Tensor:
    """Tokenize texts to an int64 Tensor [n, context_length], padded with zeros.

    Args:
        texts: one text or several.
        context_length: ids per text; default: the module's, 77 (Chinese models 52).
        truncate: cut texts that are too long, keeping the end token, instead of raising.
        model: the module whose tokenizer to use. All of OpenAI's models share one tokenizer.

    Raises:
        LabelError: a text is too long and `truncate` is off, or is not a string.
        RequestError: unknown module.

    Examples:
        >>> list(tokenize(["a diagram", "a dog"]).shape)
        [2, 77]
    """
    text = pretrained(model).config.text
    length = text.context_length if context_length is None else context_length
    return paddle.to_tensor(tokenizer.tokenize(texts, length, truncate, tokenizer_of(text)))


def transform(image: Image.Image) -> Tensor:
    """Preprocess a PIL image for the 224-pixel models: float32 Tensor [1, 3, 224, 224], normalised.

    Raises:
        ImageError: the image cannot be decoded.

    Examples:
        >>> list(transform(Image.new("RGB", (640, 480))).shape)
        [1, 3, 224, 224]
    """
    pixels = _PREPROCESS.pixels(image, "image")
    return paddle.to_tensor(pixels[None])  # 3 R R -> 1 3 R R
