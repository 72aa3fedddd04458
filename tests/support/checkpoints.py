"""Weights files with seeded random values."""

from __future__ import annotations

from pathlib import Path

from clip_common.config import ClipConfig
from clip_common.weights.weights_file import write_safetensors
from tests.parity import seeded


class Checkpoints:
    """Weights files with seeded random values, each written at its first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, config: ClipConfig) -> Path:
        path = self._folder / f"{config.name.replace('/', '-')}.safetensors"
        if not path.exists():
            write_safetensors(seeded.state(config), path, {})
        return path
