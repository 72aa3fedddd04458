"""Checks that a weights file is the published one: its hash, and its features for known inputs.

The reference values of OpenAI's weights come from the seed port (ranchlai/clip.paddle, `test.py`), computed
in fp16; those of Chinese-CLIP come from its README.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import Pretrained, ReferenceValues
from ..engines.paddle_engine import PaddleEngine
from ..models.factory import load_model
from ..preprocessing.image import Preprocess
from ..system.cache import content_sha256
from ..text.tokenizer import tokenize, tokenizer_of
from ..weights.weights_file import WeightsFile
from ..zero_shot.scoring import l2_normalize, top_k_labels


@dataclass(frozen=True)
class Comparison:
    """One comparison. `passed` is None if there is nothing to compare with."""

    what: str
    found: str
    expected: str
    passed: bool | None


def verify(weights: WeightsFile, image: Path | None = None) -> list[Comparison]:
    """Load a module's weights strictly and compare their features with those of the published weights.

    Args:
        weights: the file to check.
        image: the image that the reference values belong to; None skips the image tower.

    Raises:
        WeightsError: the weights cannot be loaded.
        ImageError: the image cannot be read.
    """
    record = weights.record
    checks = [_hash_check(weights), _settings_check(weights)]
    engine = PaddleEngine(load_model(weights))
    config = record.config.text
    texts = list(record.sample_texts)
    ids = tokenize(texts, config.context_length, tokenizer=tokenizer_of(config))
    text = engine.encode_text(ids, len(texts))
    reference = record.reference_values
    mean = float(np.mean(text**2))
    what = f"mean squared text feature of {texts}"
    if reference is None or reference.text is None:
        checks.append(Comparison(what, f"{mean:.6f}", "none published", None))
    else:
        low, high = reference.text
        fits = low - reference.tolerance <= mean <= high + reference.tolerance
        checks.append(Comparison(what, f"{mean:.6f}", f"{low} to {high}, within {reference.tolerance}", fits))
    if image is not None:
        checks += _image_checks(record, engine, text, image)
    return checks


def _hash_check(weights: WeightsFile) -> Comparison:
    """Compare the hash. Only the published file has it; a converted file is checked by its features."""
    published = weights.record.weights
    found = content_sha256(weights.path)  # not the remembered hash: a disk can corrupt a file later
    if published.sha256 is None:
        return Comparison("sha256", found, "not known", None)
    claims_to_be_it = weights.path.name == published.kept_as(weights.record.name)
    same = found == published.sha256
    return Comparison("sha256", found, published.sha256, same if same or claims_to_be_it else None)


def _settings_check(weights: WeightsFile) -> Comparison:
    """Report the settings that the file is used with: the tensors cannot confirm them."""
    config, preprocessing = weights.record.config, weights.record.preprocessing
    found = f"{config.activation}, {preprocessing.resize}, mean {preprocessing.mean}, std {preprocessing.std}"
    return Comparison("activation and preprocessing", found, "as the file or its record says", None)


def _image_checks(
    record: Pretrained, engine: PaddleEngine, text: np.ndarray, image: Path
) -> list[Comparison]:
    preprocess = Preprocess(record.config.image_resolution, record.preprocessing)
    feature = engine.encode_image(preprocess.pixels(image, str(image))[None])
    mean = float(np.mean(feature**2))
    texts = list(record.sample_texts)
    answer = top_k_labels(feature[0], l2_normalize(text), engine.logit_scale, texts, len(texts))
    scores = [float(item["score"]) for text in texts for item in answer if item["label"] == text]
    reference = record.reference_values
    known_mean = None if reference is None or reference.image is None else [reference.image]
    known_scores = None if reference is None else reference.scores
    return [
        _near(f"mean squared feature of {image.name}", [mean], known_mean, reference),
        _near(f"scores of {image.name} for {texts}", scores, known_scores, reference),
    ]


def _near(
    what: str, found: list[float], expected: Sequence[float] | None, reference: ReferenceValues | None
) -> Comparison:
    shown = ", ".join(f"{value:.7f}" for value in found)
    if reference is None or expected is None:
        return Comparison(what, shown, "none published", None)
    fits = all(abs(a - b) <= reference.tolerance for a, b in zip(found, expected, strict=True))
    wanted = ", ".join(map(str, expected))
    return Comparison(what, shown, f"{wanted} for {reference.image_name}, within {reference.tolerance}", fits)
