"""Heat maps that show which regions of an image support a label, from copies with random regions hidden.

The method is RISE (Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", BMVC 2018). It needs only scores, so it works with every architecture and engine. Three things differ
from the paper: hidden regions are blurred, not black, because black regions are unlike any natural image;
each mask is used together with its complement, which cancels the score that both share; and the score is the
log odds of the label against the other labels, so that a map shows what is specific to the label.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..inputs import check_count
from ..preprocessing.image import ImageInput
from .cached_labels import LabelTargets
from .scoring import label_logits, top_k_labels

if TYPE_CHECKING:
    from ..predictor import Predictor

COPIES = 256
"""Masked copies of an image that the model encodes: half of them random masks, half their complements."""

_CELLS = 7  # per side of a mask
_SEED = 0
_BLURRED = 6  # side in pixels that the image is reduced to for its blurred copy


def explain(
    predictor: Predictor,
    image: ImageInput | str | Path,
    labels: Iterable[str] | None = None,
    templates: str | Iterable[str] | None = None,
    top_k: int = 1,
    batch_size: int = 32,
    use_gpu: bool = False,
) -> dict[str, np.ndarray]:
    """Compute heat maps that show which regions of an image support its best labels.

    The model runs on 256 masked copies, so this costs as much as classifying 256 images. The result is
    deterministic.

    Args:
        predictor: the module.
        image: a path, or any form that `Predictor.classify` accepts.
        labels: as for `Predictor.classify`. A map shows what distinguishes its label from the others.
        templates: as for `Predictor.classify`.
        top_k: number of labels to explain.
        batch_size: number of copies passed to the engine at once.
        use_gpu: run on the GPU.

    Returns:
        {label: float32 [R, R]}, best label first. A map covers the R x R input of the model: the central
        square of the image, or the whole image for modules that squash it. A value is the change of the
        label's log odds when that pixel is visible; negative values support other labels.

    Raises:
        ImageError: the image cannot be read.
        LabelError: invalid labels or templates.
        WeightsError: weights are not available, damaged, or do not fit the model.
        RequestError: an invalid argument.

    Examples:
        >>> from clip_common import Predictor, explain
        >>> heat = explain(Predictor("clip_mini"), "examples/photo_dog.jpg", ["a dog", "a cat"])
        >>> {label: heat.shape for label, heat in heat.items()}
        {'a dog': (240, 240)}
    """
    check_count("top_k", top_k)
    check_count("batch_size", batch_size)
    prompts, _ = predictor.labels.prompts_and_scoring(labels, templates)
    pixels = predictor.preprocess.pixels(image, str(image) if isinstance(image, (str, Path)) else "image")
    targets = predictor.labels.targets(prompts, use_gpu)
    feature = predictor.encode_image(pixels[None], use_gpu)[0]
    best = top_k_labels(feature, targets, predictor.logit_scale, prompts.labels, top_k)
    chosen = [item["label"] for item in best]
    places = [prompts.labels.index(label) for label in chosen]
    return dict(zip(chosen, heat_maps(predictor, pixels, targets, places, batch_size, use_gpu), strict=True))


def heat_maps(
    predictor: Predictor,
    pixels: np.ndarray,
    targets: LabelTargets,
    chosen: Sequence[int],
    batch_size: int = 32,
    use_gpu: bool = False,
    encode: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Heat maps of the chosen labels, float32 [chosen, R, R], see `explain`.

    Args:
        predictor: the module.
        pixels: the preprocessed image, float32 [3, R, R].
        targets: embeddings of all labels, [labels, d], or these with an image cache.
        chosen: indices of the labels to explain.
        batch_size: number of copies passed to the engine at once.
        use_gpu: run on the GPU.
        encode: function from copies [n, 3, R, R] to features [n, d]; default: the image tower.
    """

    def at_once(copies: np.ndarray) -> np.ndarray:
        return predictor.encode_image(copies, use_gpu)

    encode = encode or at_once
    side = pixels.shape[-1]
    blurred = np.stack([_resized(_resized(plane, _BLURRED, Image.Resampling.BOX), side) for plane in pixels])
    together = np.zeros((len(chosen), side, side))
    variance = np.zeros((side, side))
    for masks in _batches(side, batch_size):
        copies = blurred + masks[:, None] * (pixels - blurred)
        features = encode(copies.astype(np.float32))
        scores = log_odds(label_logits(features, targets, predictor.logit_scale), chosen)
        together += np.einsum("nl,nhw->lhw", scores, masks - 0.5, optimize=True)
        variance += ((masks - 0.5) ** 2).sum(axis=0)
    return (together / variance).astype(np.float32)


def log_odds(logits: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Log odds of the chosen labels against all other labels: [n, labels] to [n, chosen].

    A single label has no others to compare with: its logit is returned.

    Examples:
        >>> log_odds(np.array([[3.0, 1.0]]), [0, 1]).tolist()
        [[2.0, -2.0]]
    """
    if logits.shape[1] == 1:
        return logits[:, chosen]
    others = [np.logaddexp.reduce(np.delete(logits, label, axis=1), axis=1) for label in chosen]
    return logits[:, chosen] - np.stack(others, axis=1)


def _batches(side: int, batch_size: int) -> Iterator[np.ndarray]:
    """All masks, float32 [n, side, side] from 0 (hidden) to 1 (visible), n at most `batch_size`."""
    random = np.random.RandomState(_SEED)
    pairs = ((mask, 1 - mask) for mask in (_mask(random, side) for _ in range(COPIES // 2)))
    masks = itertools.chain.from_iterable(pairs)
    while batch := list(itertools.islice(masks, batch_size)):
        yield np.stack(batch)


def _mask(random: np.random.RandomState, side: int) -> np.ndarray:
    """A random grid of hidden and visible cells, with soft edges and a random offset, [side, side]."""
    cells = random.randint(0, 2, (_CELLS + 1, _CELLS + 1)).astype(np.float32)
    cell = -(-side // _CELLS)
    top, left = random.randint(0, cell, 2)
    smooth = _resized(cells, (_CELLS + 1) * cell)
    return smooth[top : top + side, left : left + side]


def _resized(
    plane: np.ndarray, side: int, method: Image.Resampling = Image.Resampling.BILINEAR
) -> np.ndarray:
    return np.asarray(Image.fromarray(plane).resize((side, side), method))
