"""Ours over a seeded checkpoint, as `make_golden.run_reference` runs OpenAI's: the model stage by stage, and
the engine that users get by default."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import paddle

from clip_common.config import PRETRAINED, BertConfig, ClipConfig, Preprocessing
from clip_common.models.clip import CLIP
from clip_common.predictor import Predictor
from clip_common.preprocessing.image import Preprocess
from tests.parity import seeded, stages


def run_ours(config: ClipConfig, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    model = CLIP(config)
    model.load_openai(state)
    model.eval()
    return run_stages(model, config) | answer_for_image(model, config)


def run_engine(config: ClipConfig, checkpoint: Path, engine: str = "auto") -> dict[str, np.ndarray]:
    """What users get: both towers, and the answer for an image, through `Predictor`."""
    record = next(record for record in PRETRAINED.values() if record.config == config)
    predictor = Predictor(record, checkpoint, engine=engine)
    opened = predictor.engine()
    image, labels = [seeded.image()], seeded.labels(config)
    answer = predictor.classify(images=image, labels=labels)[0]
    scores = {item["label"]: item["score"] for item in answer}
    return {
        "image": opened.encode_image(seeded.pixels(config)),
        "text": opened.encode_text(seeded.tokens(config), len(seeded.TEXTS)),
        "picture": predictor.embed(images=image)["images"][0],
        "scores": np.array([scores[label] for label in labels]),
    }


def run_stages(model: CLIP, config: ClipConfig) -> dict[str, np.ndarray]:
    seen: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable:
        return lambda _layer, _inputs, output: seen.__setitem__(name, output.numpy())

    layers = dict(model.named_sublayers())
    hooks = [layers[s.name].register_forward_post_hook(keep(s.name)) for s in stages.of(config)]
    with paddle.no_grad():
        image = model.encode_image(paddle.to_tensor(seeded.pixels(config))).numpy()
        text = model.encode_text(paddle.to_tensor(seeded.tokens(config))).numpy()
    for hook in hooks:
        hook.remove()
    return {**seen, "image": image, "text": text}


def answer_for_image(model: CLIP, config: ClipConfig) -> dict[str, np.ndarray]:
    """What our model says of a whole image, through our own preprocessing."""
    settings = Preprocessing(resize="squash") if isinstance(config.text, BertConfig) else Preprocessing()
    preprocess = Preprocess(config.image_resolution, settings)
    image = paddle.to_tensor(preprocess(seeded.image())[None])
    with paddle.no_grad():
        feature = model.encode_image(image).numpy()
        logits, _ = model(image, paddle.to_tensor(seeded.tokens(config)[: len(seeded.LABELS)]))
        scores = paddle.nn.functional.softmax(logits, axis=-1).numpy()
    return {"picture": (feature / np.linalg.norm(feature))[0], "scores": scores[0]}
