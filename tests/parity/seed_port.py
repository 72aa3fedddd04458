"""OpenAI's layout to that of ranchlai/clip.paddle's .pdparams files, by the rules its first commits follow.

Written for the tests, apart from `clip_common.weights.tensor_names`, which reads what this writes.
"""

from __future__ import annotations

import numpy as np


def to_seed_port(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """float32 everywhere; linears turned; q, k and v apart, with the unsplit tensors left in beside."""
    made: dict[str, np.ndarray] = {}
    for name, given in state.items():
        value = given.astype("float32")
        name = name.replace(".running_mean", "._mean").replace(".running_var", "._variance")
        if name == "logit_scale":
            value = value.reshape(1)
        if name.endswith(".in_proj_weight"):
            for part, weight in zip("qkv", np.split(value, 3), strict=True):
                made[name.replace("in_proj_weight", f"{part}_proj.weight")] = weight.T
        elif name.endswith(".in_proj_bias"):
            for part, bias in zip("qkv", np.split(value, 3), strict=True):
                made[name.replace("in_proj_bias", f"{part}_proj.bias")] = bias
        elif name.endswith(("_fc.weight", "_proj.weight")):
            value = value.T
        if ".attn.out_proj." in name:
            made[name.replace("out_proj", "c_proj")] = value
        made[name] = value
    return made
