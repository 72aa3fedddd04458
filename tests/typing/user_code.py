"""What users write, for mypy to read (`files` in pyproject.toml); nothing runs it.

`assert_type` holds what their editors show. A line with `type: ignore` must be an error: mypy says when it is
not one any more.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from typing_extensions import assert_type

import clip_common
from clip_common import ClipError, Predictor, Thresholds
from clip_common.config import Pretrained, pretrained
from clip_common.predictor import Embeddings, ImageEmbeddings, PredictorOptions, TextEmbeddings
from clip_common.zero_shot.scoring import Answer, ScoreKind


def classify(predictor: Predictor, photo: Image.Image) -> str:
    answers = predictor.classify(
        images=[photo, b"encoded"], labels=["a dog", "a cat"], templates="a photo of a {}", top_k=1
    )
    assert_type(answers, list[Answer])
    assert_type(answers[0][0]["score"], float)
    answers[0][0]["probability"]  # type: ignore[typeddict-item]
    return answers[0][0]["label"]


def tag(predictor: Predictor, files: list[Path]) -> list[list[str]]:
    labels = ["a dog", "a cat"]
    predictor.classify(paths=files, labels=labels, scores="cosine", thresholds=0.25)
    predictor.classify(paths=files, labels=labels, scores="cosine", thresholds={"a dog": 0.25, "a cat": 0.3})
    predictor.classify(paths=files, labels=labels, scores="dot")  # type: ignore[arg-type]
    fitted = Thresholds.read("thresholds.json")
    assert_type(fitted.scores, ScoreKind)
    answers = predictor.classify(paths=files, thresholds=fitted)
    return [[item["label"] for item in answer] for answer in answers]


def embed(predictor: Predictor, files: list[Path], words: list[str] | None) -> np.ndarray:
    assert_type(predictor.embed(paths=files), ImageEmbeddings)
    assert_type(predictor.embed(texts=["a dog"]), TextEmbeddings)
    assert_type(predictor.embed(paths=files, texts=words), Embeddings)
    images = predictor.embed(paths=["x.png"])["images"]
    texts = predictor.embed(texts=["a dog", "a cat"])["texts"]
    predictor.embed(texts=3)  # type: ignore[call-overload]
    return images @ texts.T


def load() -> Predictor:
    record = pretrained("clip_vit_b32")
    assert_type(record, Pretrained)
    predictor = PredictorOptions(weights="ViT-B-32.pt", engine="onnxruntime").predictor(record)
    assert_type(predictor.with_options(precision="bfloat16"), Predictor)
    assert_type(predictor.logit_scale, float)
    return Predictor(record, weights=Path("ViT-B-32.pt"))


def port_names() -> None:
    """The names of the Paddle port that this project grew from."""
    model = clip_common.load("clip_vit_b32")
    assert_type(model, clip_common.CLIP)
    assert_type(clip_common.build_vit_model(), clip_common.CLIP)
    model.encode_text(clip_common.tokenize(["a diagram"], context_length=77, truncate=False))
    model.encode_image(clip_common.transform(Image.open("x.png")))
    assert_type(clip_common.__version__, str)


def errors() -> str:
    try:
        return pretrained("nope").name
    except ClipError as error:
        assert isinstance(error, ValueError)
        return str(error)
