"""Run the authors' own model code on torch over the seeded checkpoints, and keep what its stages give.

    python -m tests.parity.make_golden [NAME ...]

where torch and the packages openai-clip, open_clip_torch and cn-clip are installed, writes
`tests/golden/<architecture>.npz`, against which the default test run compares, without any of them. A NAME is
part of an architecture's; left out, all are made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clip_common.config import BertConfig, ClipConfig
from tests.parity import chinese_reference, open_clip_reference, reference, seeded, stages
from tests.parity.architectures import SHALLOW, WHOLE

GOLDEN = Path(__file__).parent.parent / "golden"


def golden_file(config: ClipConfig) -> Path:
    return GOLDEN / f"{config.name.replace('/', '-').replace(', ', '_')}.npz"


def build_reference(config: ClipConfig, state: dict[str, np.ndarray]) -> Any:
    """The code of those who trained weights like these: OpenAI's, open_clip's or cn-clip's."""
    if isinstance(config.text, BertConfig):
        return chinese_reference.build_reference(config, state)
    if config.activation == "gelu":
        return open_clip_reference.build_reference(config, state)
    return reference.build_reference(state)


def available(config: ClipConfig) -> bool:
    """Whether the code that `build_reference` runs is installed."""
    if isinstance(config.text, BertConfig):
        return chinese_reference.available("torch", "timm", "six")
    if config.activation == "gelu":
        return open_clip_reference.available()
    return reference.available()


def run_reference(config: ClipConfig, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stage by stage what the reference computes, in float32 on the given values."""
    import torch

    model = build_reference(config, state)
    seen: dict[str, np.ndarray] = {}

    def keep(stage: stages.Stage) -> Callable:
        def hook(_module: object, _inputs: object, output: Any) -> None:
            value = output.numpy()
            # OpenAI's transformers run in the order LND, open_clip's and ours in NLD.
            swapped = stage.sequence_first and config.activation != "gelu"
            value = value.swapaxes(0, 1) if swapped else value
            # open_clip normalises all tokens before it takes the first.
            seen[stage.name] = value[:, 0] if stage.name.endswith("ln_post") and value.ndim == 3 else value

        return hook

    modules = dict(model.named_modules())
    hooks = [modules[stage.name].register_forward_hook(keep(stage)) for stage in stages.of(config)]
    with torch.no_grad():
        image = model.encode_image(torch.from_numpy(seeded.pixels(config))).numpy()
        text = model.encode_text(torch.from_numpy(seeded.tokens(config))).numpy()
    for hook in hooks:
        hook.remove()
    return {**seen, "image": image, "text": text, **answer_for_image(model, config)}


def answer_for_image(model: Any, config: ClipConfig) -> dict[str, np.ndarray]:
    """What the reference says of a whole image: its unit vector, and its scores for three labels."""
    import torch

    is_chinese = isinstance(config.text, BertConfig)
    prepare = chinese_reference.reference_pixels if is_chinese else reference.reference_pixels
    pixels = prepare(seeded.image(), config.image_resolution)
    with torch.no_grad():
        image = model.encode_image(torch.from_numpy(pixels[None]))
        text = model.encode_text(torch.from_numpy(seeded.tokens(config)[: len(seeded.LABELS)]))
        image, text = (feature / feature.norm(dim=1, keepdim=True) for feature in (image, text))
        logits = model.logit_scale.exp() * image @ text.t()
    return {"picture": image[0].numpy(), "scores": logits.softmax(dim=-1)[0].numpy()}


def main() -> None:
    for config in (*WHOLE, *SHALLOW):
        if len(sys.argv) > 1 and not any(name in config.name for name in sys.argv[1:]):
            continue
        outputs = run_reference(config, seeded.state(config))
        kept: dict[str, Any] = {name: stages.sample(name, value) for name, value in outputs.items()}
        np.savez_compressed(golden_file(config), **kept)
        print(golden_file(config), golden_file(config).stat().st_size, "bytes")


if __name__ == "__main__":
    main()
