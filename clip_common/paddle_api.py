"""The names of ranchlai/clip.paddle, the port this project grew from, with Paddle tensors in and out.

    from clip_common import build_vit_model, tokenize, transform

is the one line that a script written for it needs to change.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """A module's model with its weights, in eval mode and float32.

    Args:
        name: a module's, such as "clip_vit_b32".
        weights: a weights file of any supported format, or the tag of some of the module's published weights;
            left out, its own, from its bundle, the cache, or a download.

    Raises:
        ValueError: there is no such module.
        WeightsError: the weights cannot be had, or do not fit; the message says what to do.

    Examples:
        >>> load("clip_mini").encode_text(tokenize(["a dog", "a cat"])).shape[0]
        2
    """
    return load_model(find(pretrained(name), weights))


def tokenize(
    texts: str | Sequence[str],
    context_length: int | None = None,
    truncate: bool = False,
    model: str = "clip_vit_b32",
) -> Tensor:
    """Texts to token ids, int64 Tensor [n, context_length]; see `tokenizer.tokenize`.

    Args:
        texts: one text or several.
        context_length: ids per text; left out, what the module reads: 77 for OpenAI's, 52 for Chinese.
        truncate: cut texts that are too long, keeping the end token.
        model: the module that is to read them; those that OpenAI trained have one tokenizer.

    Examples:
        >>> list(tokenize(["a diagram", "a dog"]).shape)
        [2, 77]
    """
    text = pretrained(model).config.text
    length = text.context_length if context_length is None else context_length
    return paddle.to_tensor(tokenizer.tokenize(texts, length, truncate, tokenizer_of(text)))


def transform(image: Image.Image) -> Tensor:
    """A PIL image to what the 224-pixel models see, float32 Tensor [1, 3, 224, 224].

    Examples:
        >>> list(transform(Image.new("RGB", (640, 480))).shape)
        [1, 3, 224, 224]
    """
    pixels = _PREPROCESS.pixels(image, "image")
    return paddle.to_tensor(pixels[None])  # 3 R R -> 1 3 R R
