"""Write small weights files with torch itself, in each of its formats.

    python -m tests.parity.make_torch_fixtures      # where torch and the package openai-clip are installed

writes `tests/data/*.pt` and `*.pth`, which the default test run reads without torch. Their values are those
of `seeded.state`, so the files hold nothing that the tests do not know.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clip_common.config import ClipConfig, ResNetConfig, ViTConfig
from tests.parity import reference, seeded
from tests.parity.tiny import TINY_CHINESE_VIT, TINY_RN, TINY_VIT, TOKENS

DATA = Path(__file__).parent.parent / "data"


def build(config: ClipConfig) -> Any:
    """OpenAI's model of a tiny architecture with its seeded values: `build_model` cannot count its heads."""
    code = reference._file("model")
    vision, text = config.vision, config.text
    assert isinstance(vision, ResNetConfig | ViTConfig)
    model = code.CLIP(
        config.embed_dim,
        config.image_resolution,
        *(
            (1, 64, vision.patch_size)
            if isinstance(vision, ViTConfig)
            else (vision.layers, vision.width, None)
        ),
        text.context_length,
        text.vocab_size,
        text.width,
        text.heads,
        text.layers,
    )
    if isinstance(vision, ViTConfig):
        model.visual = code.VisionTransformer(
            config.image_resolution,
            vision.patch_size,
            vision.width,
            vision.layers,
            vision.heads,
            config.embed_dim,
        )
    code.convert_weights(model)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in seeded.state(config).items()})
    return model.eval()


def extras(config: ClipConfig) -> dict[str, Any]:
    """The three scalars in OpenAI's files."""
    sizes = (config.image_resolution, config.text.context_length, config.text.vocab_size)
    return dict(
        zip(("input_resolution", "context_length", "vocab_size"), map(torch.tensor, sizes), strict=True)
    )


def save_script(config: ClipConfig, path: Path, device: str) -> None:
    """An archive in the official format, whose storages claim a device, as OpenAI's do.

    Without torch's debugging notes, which make up half of so small an archive.
    """
    reference.build_reference = lambda state: build(config).float()  # noqa: ARG005 - the name is part of it
    reference.save_torchscript({}, path)
    with zipfile.ZipFile(path) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members:
            if info.filename.endswith("/data.pkl"):
                content = content.replace(_text("cpu"), _text(device))
                assert _text(device) in content
            if not info.filename.endswith(".debug_pkl"):
                archive.writestr(info.filename, content, info.compress_type)
    loaded = torch.jit.load(path, map_location="cpu").state_dict()  # it is still one for torch
    assert all(np.array_equal(loaded[name].numpy(), value) for name, value in seeded.state(config).items())


def _text(text: str) -> bytes:
    """A text as torch's archives pickle it."""
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def tag_new_storages(device: str | None) -> None:
    """Let `torch.save` write storages as if they were on a device, which no machine needs to have."""
    registry = torch.serialization._package_registry
    registry[:] = [entry for entry in registry if entry[0] != -1]
    if device:
        torch.serialization.register_package(-1, lambda _storage: device, lambda *_: None)


def views() -> dict[str, Any]:
    """Tensors that share a storage, begin inside it, or do not lie in order."""
    base = torch.arange(60, dtype=torch.float32).reshape(6, 10)
    return {
        "base": base,
        "rows": base[2:5],
        "columns": base[:, 3:7:2],
        "turned": base.t(),
        "scalar": base[4, 4],
        "empty": torch.empty(0, 3),
        "integers": torch.arange(5),
        "bytes": torch.tensor([0, 7, 255], dtype=torch.uint8),
        "flags": torch.tensor([True, False, True]),
        "doubles": torch.tensor([1 / 3, -2.5], dtype=torch.float64),
        "parameter": torch.nn.Parameter(base[1:3] * 0.5),
    }


def features() -> dict[str, Any]:
    """What OpenAI's code makes of each tiny architecture's images and texts, in float32."""
    made = {}
    for config in (TINY_VIT, TINY_RN):
        model = build(config).float()
        with torch.no_grad():
            made[f"{config.name} image"] = model.encode_image(torch.from_numpy(seeded.pixels(config))).numpy()
            made[f"{config.name} text"] = model.encode_text(torch.from_numpy(TOKENS)).numpy()
    return made


def chinese_checkpoint() -> dict[str, Any]:
    """What cn-clip's training script saves, of a model in data parallel."""
    state = {f"module.{name}": torch.from_numpy(v) for name, v in seeded.state(TINY_CHINESE_VIT).items()}
    state["module.bert.pooler.dense.weight"] = torch.zeros(16, 16)
    state["module.bert.pooler.dense.bias"] = torch.zeros(16)
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-5}]}
    return {"epoch": 3, "step": 7, "name": "a run", "state_dict": state, "optimizer": optimizer}


def main() -> None:
    np.savez(DATA / "features.npz", **features())
    vit, resnet = build(TINY_VIT), build(TINY_RN)
    save_script(TINY_VIT, DATA / "vit_script.pt", "cuda:0")
    save_script(TINY_RN, DATA / "rn_script.pt", "cpu")
    tag_new_storages("cuda:0")
    torch.save({**vit.state_dict(), **extras(TINY_VIT)}, DATA / "vit_zip.pth")
    torch.save(vit.state_dict(), DATA / "vit_legacy.pth", _use_new_zipfile_serialization=False)
    tag_new_storages(None)
    torch.save(resnet.state_dict(keep_vars=True), DATA / "rn_zip.pt")
    torch.save(resnet.bfloat16().state_dict(), DATA / "rn_bfloat16.pth")
    torch.save(views(), DATA / "views.pth")
    torch.save(views(), DATA / "views_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(chinese_checkpoint(), DATA / "chinese_vit.pt")
    for path in sorted(DATA.iterdir()):
        print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
