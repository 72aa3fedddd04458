"""Converts weights to the layouts of other projects."""

from __future__ import annotations

import numpy as np


def to_huggingface(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert from OpenAI's names to those of `CLIPModel` in transformers, or of `ChineseCLIPModel` for a
    BERT, following their documentation."""
    tops = {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "logit_scale": "logit_scale",
    }
    parts = {
        "visual.transformer.resblocks": "vision_model.encoder.layers",
        "transformer.resblocks": "text_model.encoder.layers", "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm", "ln_final": "text_model.final_layer_norm",
        "attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2",
        "c_fc": "fc1", "c_proj": "fc2",
    }  # fmt: skip
    made: dict[str, np.ndarray] = {"text_model.embeddings.position_ids": np.arange(8)[None]}
    for name, value in state.items():
        if name.startswith("bert."):
            made["text_model" + name[len("bert") :]] = value
        elif name in tops:
            made[tops[name]] = value
        elif name in ("text_projection", "visual.proj"):
            made["text_projection.weight" if name[0] == "t" else "visual_projection.weight"] = value.T
        elif "in_proj" in name:
            block = name.split(".attn.")[0]
            for theirs in ("visual.transformer.resblocks", "transformer.resblocks"):
                block = block.replace(theirs, parts[theirs])
            for part, piece in zip("qkv", np.split(value, 3), strict=True):
                made[f"{block}.self_attn.{part}_proj.{name.rsplit('_', 1)[1]}"] = piece
        else:
            for ours, theirs in parts.items():
                name = name.replace(ours, theirs)
            made[name] = value
    return {name: np.ascontiguousarray(value) for name, value in made.items()}
