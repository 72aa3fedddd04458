"""Our model over a seeded checkpoint, stage by stage, as `make_golden.run_reference` runs OpenAI's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle

from clip_common.config import ClipConfig, Preprocessing
from clip_common.model import CLIP
from clip_common.preprocess import Preprocess
from clip_common.tokenizer import tokenize
from tests.parity import seeded, stages


def run_ours(config: ClipConfig, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    model = CLIP(config)
    model.load_openai(state)
    model.eval()
    return run_stages(model, config) | answer_for_picture(model, config)


def run_stages(model: CLIP, config: ClipConfig) -> dict[str, np.ndarray]:
    seen: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable:
        return lambda _layer, _inputs, output: seen.__setitem__(name, output.numpy())

    layers = dict(model.named_sublayers())
    hooks = [layers[s.name].register_forward_post_hook(keep(s.name)) for s in stages.of(config)]
    with paddle.no_grad():
        image = model.encode_image(paddle.to_tensor(seeded.pixels(config))).numpy()
        text = model.encode_text(paddle.to_tensor(tokenize(seeded.TEXTS))).numpy()
    for hook in hooks:
        hook.remove()
    return {**seen, "image": image, "text": text}


def answer_for_picture(model: CLIP, config: ClipConfig) -> dict[str, np.ndarray]:
    """What our model says of a whole picture, through our own preprocessing."""
    preprocess = Preprocess(config.image_resolution, Preprocessing())
    image = paddle.to_tensor(preprocess(seeded.picture())[None])
    with paddle.no_grad():
        feature = model.encode_image(image).numpy()
        logits, _ = model(image, paddle.to_tensor(tokenize(seeded.LABELS)))
        scores = paddle.nn.functional.softmax(logits, axis=-1).numpy()
    return {"picture": (feature / np.linalg.norm(feature))[0], "scores": scores[0]}
