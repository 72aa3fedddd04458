"""The names and shapes of a model's tensors from its config, and a config from given tensors.

Names and shapes follow OpenAI's state dicts (`clip/model.py` of openai/CLIP), and Chinese-CLIP's for a BERT,
in torch's orientation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from ..config import (
    PRETRAINED,
    BertConfig,
    ClipConfig,
    EfficientNetConfig,
    ResNetConfig,
    TextConfig,
    ViTConfig,
)
from ..errors import WeightsError

Shape = tuple[int, ...]
_NAMED = 5  # tensors of one fault that a message names


def expected_shapes(config: ClipConfig) -> dict[str, Shape]:
    """The shape of every tensor of a model, by OpenAI's name."""
    text = config.text
    shapes: dict[str, Shape] = {"logit_scale": (), "text_projection": (text.width, config.embed_dim)}
    shapes |= _bert(text) if isinstance(text, BertConfig) else _causal_text(text)
    if isinstance(config.vision, ViTConfig):
        shapes |= _vit(config.vision, config.image_resolution, config.embed_dim)
    elif isinstance(config.vision, EfficientNetConfig):
        shapes |= _efficientnet(config.vision, config.embed_dim)
    else:
        shapes |= _resnet(config.vision, config.image_resolution, config.embed_dim)
    return shapes


def _causal_text(text: TextConfig) -> dict[str, Shape]:
    return {
        "positional_embedding": (text.context_length, text.width),
        "token_embedding.weight": (text.vocab_size, text.width),
        **_norm("ln_final", text.width),
        **_transformer("transformer", text.layers, text.width),
    }


def _bert(text: BertConfig) -> dict[str, Shape]:
    width = text.width
    shapes: dict[str, Shape] = {
        "bert.embeddings.word_embeddings.weight": (text.vocab_size, width),
        "bert.embeddings.position_embeddings.weight": (text.positions, width),
        "bert.embeddings.token_type_embeddings.weight": (text.token_types, width),
        **_norm("bert.embeddings.LayerNorm", width),
    }
    for layer in range(text.layers):
        block = f"bert.encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            shapes |= _linear(f"{block}.attention.self.{name}", width, width)
        shapes |= {
            **_linear(f"{block}.attention.output.dense", width, width),
            **_norm(f"{block}.attention.output.LayerNorm", width),
            **_linear(f"{block}.intermediate.dense", width, 4 * width),
            **_linear(f"{block}.output.dense", 4 * width, width),
            **_norm(f"{block}.output.LayerNorm", width),
        }
    return shapes


def _transformer(prefix: str, layers: int, width: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for layer in range(layers):
        block = f"{prefix}.resblocks.{layer}"
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * width, width),
            f"{block}.attn.in_proj_bias": (3 * width,),
            **_linear(f"{block}.attn.out_proj", width, width),
            **_norm(f"{block}.ln_1", width),
            **_linear(f"{block}.mlp.c_fc", width, 4 * width),
            **_linear(f"{block}.mlp.c_proj", 4 * width, width),
            **_norm(f"{block}.ln_2", width),
        }
    return shapes


def _vit(config: ViTConfig, resolution: int, embed_dim: int) -> dict[str, Shape]:
    width, patches = config.width, (resolution // config.patch_size) ** 2
    return {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (patches + 1, width),
        "visual.proj": (width, embed_dim),
        "visual.conv1.weight": (width, 3, config.patch_size, config.patch_size),
        **_norm("visual.ln_pre", width),
        **_transformer("visual.transformer", config.layers, width),
        **_norm("visual.ln_post", width),
    }


def _resnet(config: ResNetConfig, resolution: int, embed_dim: int) -> dict[str, Shape]:
    width, out = config.width, config.output_width
    shapes: dict[str, Shape] = {}
    for number, (before, after) in enumerate(
        ((3, width // 2), (width // 2, width // 2), (width // 2, width))
    ):
        shapes[f"visual.conv{number + 1}.weight"] = (after, before, 3, 3)
        shapes |= _batch_norm(f"visual.bn{number + 1}", after)
    before = width
    for stage, blocks in enumerate(config.layers):
        planes = width << stage
        for block in range(blocks):
            shapes |= _bottleneck(f"visual.layer{stage + 1}.{block}", before, planes, first=block == 0)
            before = 4 * planes
    shapes["visual.attnpool.positional_embedding"] = ((resolution // 32) ** 2 + 1, out)
    for name in "kqv":
        shapes |= _linear(f"visual.attnpool.{name}_proj", out, out)
    return shapes | _linear("visual.attnpool.c_proj", out, embed_dim)


def _bottleneck(name: str, before: int, planes: int, first: bool) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        f"{name}.conv1.weight": (planes, before, 1, 1),
        f"{name}.conv2.weight": (planes, planes, 3, 3),
        f"{name}.conv3.weight": (4 * planes, planes, 1, 1),
    }
    for number, channels in ((1, planes), (2, planes), (3, 4 * planes)):
        shapes |= _batch_norm(f"{name}.bn{number}", channels)
    if first:
        shapes[f"{name}.downsample.0.weight"] = (4 * planes, before, 1, 1)
        shapes |= _batch_norm(f"{name}.downsample.1", 4 * planes)
    return shapes


def _efficientnet(config: EfficientNetConfig, embed_dim: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        "visual.conv_stem.weight": (config.stem, 3, 3, 3),
        **_batch_norm("visual.bn_stem", config.stem),
    }
    before, number = config.stem, 0
    for stage in config.stages:
        for _ in range(stage.blocks):
            inner, name = before * stage.expansion, f"visual.blocks.{number}"
            if stage.expansion > 1:
                shapes[f"{name}.conv_expand.weight"] = (inner, before, 1, 1)
                shapes |= _batch_norm(f"{name}.bn_expand", inner)
            shapes[f"{name}.conv_depthwise.weight"] = (inner, 1, stage.kernel, stage.kernel)
            shapes |= _batch_norm(f"{name}.bn_depthwise", inner)
            shapes[f"{name}.conv_project.weight"] = (stage.channels, inner, 1, 1)
            shapes |= _batch_norm(f"{name}.bn_project", stage.channels)
            before, number = stage.channels, number + 1
    return shapes | {
        "visual.conv_head.weight": (config.features, before, 1, 1),
        **_batch_norm("visual.bn_head", config.features),
        "visual.head.projection": (config.features, embed_dim),
        **_linear("visual.head.c_fc", config.features, config.branch),
        **_linear("visual.head.c_proj", config.branch, embed_dim),
    }


def _linear(name: str, before: int, after: int) -> dict[str, Shape]:
    return {f"{name}.weight": (after, before), f"{name}.bias": (after,)}


def _norm(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _batch_norm(name: str, channels: int) -> dict[str, Shape]:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def require_match(state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], model: str) -> None:
    """Check that a state in OpenAI's layout has exactly the tensors of a model, with finite floats.

    Raises:
        WeightsError: tensors are missing, unexpected, of the wrong shape or type, or not finite. The message
            names them, and the known model that the weights belong to, if it is another one.
    """
    missing = [name for name in shapes if name not in state]
    extra = [name for name in state if name not in shapes]
    misshapen = [
        f"{name} is {list(state[name].shape)} and should be {list(shape)}"
        for name, shape in shapes.items()
        if name in state and tuple(state[name].shape) != tuple(shape)
    ]
    unreal = [
        f"{name} is of type {state[name].dtype}"
        for name in shapes
        if name in state and state[name].dtype.kind != "f"
    ]
    infinite = [
        name
        for name in shapes
        if name in state and state[name].dtype.kind == "f" and not np.isfinite(state[name]).all()
    ]
    if not (missing or extra or misshapen or unreal or infinite):
        return
    faults = [
        f"{what}: {_first_few(names)}"
        for what, names in (
            ("missing", missing),
            ("not expected", extra),
            ("of the wrong shape", misshapen),
            ("not real numbers", unreal),
            ("with values that are not finite", infinite),
        )
        if names
    ]
    other = identify(state)
    hint = f" (these are the weights of {other})" if other and other != model else ""
    raise WeightsError(f"the weights do not fit {model}{hint}; tensors {'; '.join(faults)}")


def _first_few(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def identify(state: Mapping[str, np.ndarray]) -> str | None:
    """The name of the known architecture that a state in OpenAI's layout matches, or None."""
    try:
        found = infer_config(state)
    except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError):
        return None
    known = (record.config for record in PRETRAINED.values())
    return next((config.name for config in known if _dimensions(config) == _dimensions(found)), None)


def expected_config(state: Mapping[str, np.ndarray]) -> ClipConfig:
    """The architecture to check a state in OpenAI's layout against.

    A known architecture with the same dimensions; else a known one that has more blocks but is otherwise
    equal (the file may be truncated); else the config inferred from the tensors.

    Raises:
        KeyError, IndexError, ValueError, TypeError, ZeroDivisionError: tensors that tell the dimensions are
            missing or misshapen, as in `infer_config`.
    """
    found = infer_config(state)
    known = [record.config for record in PRETRAINED.values()]
    same = [config for config in known if _dimensions(config) == _dimensions(found)]
    deeper = [
        config
        for config in known
        if _dimensions(_with_depths(found, config)) == _dimensions(config)
        and all(ours <= theirs for ours, theirs in zip(_depths(found), _depths(config), strict=True))
    ]
    return [*same, *sorted(deeper, key=_depths), found][0]


def _depths(config: ClipConfig) -> tuple[int, ...]:
    """The number of blocks of the text tower, then of the image tower, or of each of its stages."""
    vision = config.vision.layers
    return (config.text.layers, *(vision if isinstance(vision, tuple) else (vision,)))


def _with_depths(config: ClipConfig, other: ClipConfig) -> ClipConfig:
    """A config with the number of blocks of another one. An EfficientNet keeps its own, see below."""
    if type(config.vision) is not type(other.vision) or type(config.text) is not type(other.text):
        return config
    vision = config.vision
    if not isinstance(vision, EfficientNetConfig):
        vision = replace(vision, layers=other.vision.layers)  # type: ignore[arg-type]
    return replace(config, vision=vision, text=replace(config.text, layers=other.text.layers))


def _dimensions(config: ClipConfig) -> tuple:
    """The properties of an architecture that the shapes of its tensors determine."""
    vision = config.vision
    if isinstance(vision, ViTConfig):
        vision = replace(vision, head_width=0)
    return (config.embed_dim, config.image_resolution, vision, config.text)


def infer_config(state: Mapping[str, np.ndarray]) -> ClipConfig:
    """Infer the config from a state in OpenAI's layout, like `build_model` of openai/CLIP."""
    text = _infer_text(state)
    embed_dim = state["text_projection"].shape[1]
    if "visual.conv_stem.weight" in state:
        known = _known_efficientnet(state)
        return ClipConfig("inferred", embed_dim, known.image_resolution, known.vision, text)
    if "visual.proj" in state:
        width, _, _, patch_size = state["visual.conv1.weight"].shape
        grid = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
        blocks = _blocks(state, "visual.transformer.resblocks.")
        vision: ViTConfig | ResNetConfig = ViTConfig(patch_size, blocks, width)
        return ClipConfig("inferred", embed_dim, grid * patch_size, vision, text)
    grid = round((state["visual.attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
    one, two, three, four = (_blocks(state, f"visual.layer{stage}.") for stage in (1, 2, 3, 4))
    vision = ResNetConfig((one, two, three, four), state["visual.layer1.0.conv1.weight"].shape[0])
    return ClipConfig("inferred", embed_dim, grid * 32, vision, text)


def _infer_text(state: Mapping[str, np.ndarray]) -> TextConfig | BertConfig:
    if any(name.startswith("bert.") for name in state):
        vocab_size, width = state["bert.embeddings.word_embeddings.weight"].shape
        positions = state["bert.embeddings.position_embeddings.weight"].shape[0]
        token_types = state["bert.embeddings.token_type_embeddings.weight"].shape[0]
        layers = _blocks(state, "bert.encoder.layer.")
        return BertConfig(width, layers, vocab_size=vocab_size, positions=positions, token_types=token_types)
    width = state["ln_final.weight"].shape[0]
    context_length = state["positional_embedding"].shape[0]
    vocab_size = state["token_embedding.weight"].shape[0]
    return TextConfig(width, _blocks(state, "transformer.resblocks."), context_length, vocab_size)


def _known_efficientnet(state: Mapping[str, np.ndarray]) -> ClipConfig:
    """The known architecture with this image tower; shapes do not determine its strides and resolution."""
    found = {name: tuple(value.shape) for name, value in state.items() if name.startswith("visual.")}
    for record in PRETRAINED.values():
        if found.items() <= expected_shapes(record.config).items():
            return record.config
    raise ValueError("the shapes match no known EfficientNet")


def _blocks(names: Iterable[str], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)})
