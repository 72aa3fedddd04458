"""Why this label: where an image has what speaks for a label, from many copies of it with parts hidden.

The method is RISE (Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", BMVC 2018). It looks at scores alone, so it works with every architecture and engine. Three things
differ: what is hidden is blurred, not black, since black parts make an image of another kind; each mask is
used with its opposite, so that what both score alike cancels out; and a score is the label's log odds against
the other labels, so that a map shows what is the label's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..inputs import check_count
from ..preprocessing.image import ImageInput
from .cached_labels import LabelTargets
from .scoring import label_logits

if TYPE_CHECKING:
    from ..predictor import Predictor

COPIES = 256
"""How often the model sees an image to explain it: half of the masks, and the opposite of each."""

_CELLS = 7  # of a mask, a side
_SEED = 0
_BLURRED = 6  # pixels a side of the image that is shown where the sharp one is hidden


def explain(
    predictor: Predictor,
    image: ImageInput | str | Path,
    labels: Iterable[str] | None = None,
    templates: str | Iterable[str] | None = None,
    top_k: int = 1,
    batch_size: int = 32,
    use_gpu: bool = False,
) -> dict[str, np.ndarray]:
    """Heat maps of an image's best labels: where it has what speaks for each.

    The model runs on 256 copies of the image, so this takes as long as to classify 256 images. The same image
    gives the same maps.

    Args:
        predictor: the module.
        image: a path, or one of the forms that `Predictor.classify` takes.
        labels: as for `Predictor.classify`. A map shows what tells its label from the others.
        templates: as for `Predictor.classify`.
        top_k: how many labels to explain.
        batch_size: copies passed to the engine at once.
        use_gpu: run on the GPU.

    Returns:
        {label: float32 [R, R]}, best first, over the square that the model sees, of R pixels a side: the
        shorter side of an image and its centre, or the whole image with modules that squash it. A value is by
        how much showing a place raises the label's log odds; below 0 it speaks for other labels.

    Raises:
        ImageError: the image cannot be read.
        LabelError: labels or templates cannot be used.
        WeightsError: the weights cannot be had, or do not fit.
        RequestError: an argument makes no sense.

    Examples:
        >>> from clip_common import Predictor, explain
        >>> heat = explain(Predictor("clip_mini"), "examples/photo_dog.jpg", ["a dog", "a cat"])
        >>> {label: heat.shape for label, heat in heat.items()}
        {'a dog': (240, 240)}
    """
    check_count("top_k", top_k)
    check_count("batch_size", batch_size)
    prompts, _ = predictor.question(labels, templates)
    pixels = predictor.preprocess.pixels(image, str(image) if isinstance(image, (str, Path)) else "image")
    targets = predictor.label_targets(prompts, use_gpu)
    feature = predictor.encode_image(pixels[None], use_gpu)[0]
    chosen = [item["label"] for item in predictor.top_k_labels(feature, targets, prompts.labels, top_k)]
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
    """The maps of some labels, float32 [chosen, R, R], see `explain`.

    Args:
        predictor: the module.
        pixels: the prepared image, float32 [3, R, R].
        targets: embeddings of all labels of the call, [labels, d], alone or with a cache.
        chosen: the places of those to explain.
        batch_size: copies passed to the engine at once.
        use_gpu: run on the GPU.
        encode: copies to features, in place of the image tower at once.
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
    """Some labels' logits over those of all others together: [n, labels] to [n, chosen].

    A label alone has nothing to be compared with: it keeps its logit.

    Examples:
        >>> log_odds(np.array([[3.0, 1.0]]), [0, 1]).tolist()
        [[2.0, -2.0]]
    """
    if logits.shape[1] == 1:
        return logits[:, chosen]
    others = [np.logaddexp.reduce(np.delete(logits, label, axis=1), axis=1) for label in chosen]
    return logits[:, chosen] - np.stack(others, axis=1)


def _batches(side: int, batch_size: int) -> Iterator[np.ndarray]:
    """All masks, float32 [n, side, side] of 0 (hidden) to 1 (shown), in batches of at most so many."""
    random = np.random.RandomState(_SEED)
    batch: list[np.ndarray] = []
    for _ in range(COPIES // 2):
        mask = _mask(random, side)
        for copy in (mask, 1 - mask):
            batch.append(copy)
            if len(batch) == batch_size:
                yield np.stack(batch)
                batch = []
    if batch:
        yield np.stack(batch)


def _mask(random: np.random.RandomState, side: int) -> np.ndarray:
    """Cells hidden or shown by chance, with soft edges, shifted by a part of a cell."""
    cells = random.randint(0, 2, (_CELLS + 1, _CELLS + 1)).astype(np.float32)
    cell = -(-side // _CELLS)
    top, left = random.randint(0, cell, 2)
    smooth = _resized(cells, (_CELLS + 1) * cell)
    return smooth[top : top + side, left : left + side]


def _resized(
    plane: np.ndarray, side: int, method: Image.Resampling = Image.Resampling.BILINEAR
) -> np.ndarray:
    return np.asarray(Image.fromarray(plane).resize((side, side), method))
