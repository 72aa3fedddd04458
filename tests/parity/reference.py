"""OpenAI's own model code, from the package openai-clip, run on torch. Used only where both are there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image


def _file(name: str) -> ModuleType:
    """One file of the package alone: its `__init__` imports torchvision, which nothing here needs."""
    package = importlib.util.find_spec("clip")
    assert package is not None and package.submodule_search_locations, "pip install --no-deps openai-clip"
    return load_file(Path(package.submodule_search_locations[0]) / f"{name}.py", f"openai_{name}")


def load_file(path: Path, name: str) -> ModuleType:
    """A file as a module of that name, without what its package would import."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def available() -> bool:
    """Whether torch and OpenAI's package are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "clip"))


def build_reference(state: dict[str, np.ndarray]) -> Any:
    """OpenAI's model over a state dict, as `clip.load` makes it on a CPU: fp16 values, float32 arithmetic."""
    import torch

    tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    return _file("model").build_model(tensors).float()


def reference_pixels(image: Image.Image, size: int) -> np.ndarray:
    """What `clip._transform` gives for an image, float32 [3, size, size], without torchvision."""
    width, height = image.size
    if width <= height:
        width, height = size, int(size * height / width)
    else:
        width, height = int(size * width / height), size
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return normalized(image.crop((left, top, left + size, top + size)).convert("RGB"))


def normalized(rgb: Image.Image) -> np.ndarray:
    """torchvision's `ToTensor` and `Normalize` with OpenAI's mean and deviation."""
    scaled = np.asarray(rgb).astype("float32") / np.float32(255)
    mean = np.array([0.48145466, 0.4578275, 0.40821073], "float32")
    std = np.array([0.26862954, 0.26130258, 0.27577711], "float32")
    return ((scaled - mean) / std).transpose(2, 0, 1)


def reference_tokenizer() -> Any:
    """OpenAI's tokenizer."""
    return _file("simple_tokenizer").SimpleTokenizer()


def save_torchscript(state: dict[str, np.ndarray], path: Path) -> None:
    """An archive in the format of OpenAI's official files: traced, fp16 where theirs are, with the three
    scalars that theirs carry."""
    import torch

    model_file = _file("model")
    model = build_reference(state)
    pixels = torch.zeros(1, 3, model.visual.input_resolution, model.visual.input_resolution)
    tokens = torch.zeros(1, model.context_length, dtype=torch.int64)
    tokens[0, 1] = model.vocab_size - 1
    for name, value in (
        ("input_resolution", model.visual.input_resolution),
        ("context_length", model.context_length),
        ("vocab_size", model.vocab_size),
    ):
        if name in vars(model):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(value))
    with torch.no_grad():
        traced = torch.jit.trace(model, (pixels, tokens), check_trace=False)
    model_file.convert_weights(model)
    for name, parameter in traced.named_parameters():
        parameter.data = model.get_parameter(name).data
    torch.jit.save(traced, str(path))
