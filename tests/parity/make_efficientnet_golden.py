"""Run the package's own EfficientNet-Lite on torch over a seeded checkpoint, and keep what its stages give.

    python -m tests.parity.make_efficientnet_golden    # with torch and efficientnet-lite-pytorch installed

writes `tests/golden/EfficientNet-Lite1.npz`, against which the default test run compares, without torch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clip_common.config import MINI
from recipes.clip_mini.tower import tower_name
from tests.parity import seeded

GOLDEN = Path(__file__).parent.parent / "golden" / "EfficientNet-Lite1.npz"
_SAMPLES = 1000


def sample(value: np.ndarray) -> np.ndarray:
    """What is kept of a stage: pooled features whole, of larger tensors the same places every time."""
    if value.ndim == 2:
        return value
    return value.reshape(-1)[np.random.RandomState(value.size % 2**31).randint(0, value.size, _SAMPLES)]


def run_reference() -> dict[str, np.ndarray]:
    """Stage by stage what the package computes, in float32 on the given values."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    model = EfficientNet.from_name("efficientnet-lite1")
    given = seeded.state(MINI)
    state = {
        name: torch.from_numpy(given[ours].astype("float32")) if (ours := tower_name(name)) else value
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    model.eval()
    with torch.no_grad():
        x = model._swish(model._bn0(model._conv_stem(torch.from_numpy(seeded.pixels(MINI)))))
        seen = {"stem": x.numpy()}
        for number, block in enumerate(model._blocks):
            x = block(x)
            seen[f"block {number}"] = x.numpy()
        seen["pooled"] = model._swish(model._bn1(model._conv_head(x))).mean((2, 3)).numpy()
    return seen


def main() -> None:
    kept = {name: sample(value) for name, value in run_reference().items()}
    np.savez_compressed(GOLDEN, **kept)  # type: ignore[arg-type]
    print(GOLDEN, GOLDEN.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
