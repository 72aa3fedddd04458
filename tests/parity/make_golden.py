"""Run OpenAI's own model code on torch over the seeded checkpoints, and keep what its stages give.

    python -m tests.parity.make_golden      # where torch and the package openai-clip are installed

writes `tests/golden/<architecture>.npz`, against which the default test run compares, without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clip_common.config import RN50, RN101, VIT_B32, ClipConfig
from clip_common.text.tokenizer import tokenize
from tests.parity import seeded, stages
from tests.parity.reference import build_reference, reference_pixels

GOLDEN = Path(__file__).parent.parent / "golden"


def golden_file(config: ClipConfig) -> Path:
    return GOLDEN / f"{config.name.replace('/', '-')}.npz"


def run_reference(config: ClipConfig, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stage by stage what OpenAI's code computes, in float32 on the given values."""
    import torch

    model = build_reference(state)
    seen: dict[str, np.ndarray] = {}

    def keep(stage: stages.Stage) -> Callable:
        def hook(_module: object, _inputs: object, output: Any) -> None:
            value = output.numpy()
            # OpenAI's transformers run in the order LND, ours in NLD.
            seen[stage.name] = value.swapaxes(0, 1) if stage.sequence_first else value

        return hook

    modules = dict(model.named_modules())
    hooks = [modules[stage.name].register_forward_hook(keep(stage)) for stage in stages.of(config)]
    with torch.no_grad():
        image = model.encode_image(torch.from_numpy(seeded.pixels(config))).numpy()
        text = model.encode_text(torch.from_numpy(tokenize(seeded.TEXTS))).numpy()
    for hook in hooks:
        hook.remove()
    return {**seen, "image": image, "text": text, **answer_for_image(model, config)}


def answer_for_image(model: Any, config: ClipConfig) -> dict[str, np.ndarray]:
    """What OpenAI's code says of a whole image: its unit vector, and its scores for three labels."""
    import torch

    pixels = reference_pixels(seeded.image(), config.image_resolution)
    with torch.no_grad():
        image, text = torch.from_numpy(pixels[None]), torch.from_numpy(tokenize(seeded.LABELS))
        feature = model.encode_image(image)
        logits, _ = model(image, text)
    unit = feature / feature.norm(dim=1, keepdim=True)
    return {"picture": unit[0].numpy(), "scores": logits.softmax(dim=-1)[0].numpy()}


def main() -> None:
    for config in (RN50, RN101, VIT_B32):
        outputs = run_reference(config, seeded.state(config))
        kept: dict[str, Any] = {name: stages.sample(name, value) for name, value in outputs.items()}
        np.savez_compressed(golden_file(config), **kept)
        print(golden_file(config), golden_file(config).stat().st_size, "bytes")


if __name__ == "__main__":
    main()
