"""Seeded checkpoints as files."""

from __future__ import annotations

from pathlib import Path

from clip_common.config import ClipConfig
from clip_common.weights.weights_file import write_safetensors
from tests.parity import seeded


class Checkpoints:
    """Seeded checkpoints as files, each written when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, config: ClipConfig) -> Path:
        path = self._folder / f"{config.name.replace('/', '-')}.safetensors"
        if not path.exists():
            write_safetensors(seeded.state(config), path, {})
        return path
