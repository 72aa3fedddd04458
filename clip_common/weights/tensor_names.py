"""Converts state dicts of every known layout to OpenAI's names and orientation, the common form here.

In OpenAI's layout linear weights are [out, in], as in torch, and queries, keys and values share one
`in_proj`. Only this file renames, transposes or drops weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ..config import TextConfig
from ..errors import WeightsError
from .mapped import release

State = dict[str, np.ndarray]

# Tensors that are dropped; there are no others. They are not parameters: three scalars in OpenAI's archives,
# counters of torch's BatchNorm and averaged models, a constant of Hugging Face's embeddings, and the classes
# and cache of an adapted module, which `class_head.py` reads. The last is the pooler of a BERT, which
# Chinese-CLIP's own loader drops too.
CLASS_VECTORS = "class_vectors"
CACHE_KEYS, CACHE_VALUES = "cache_keys", "cache_values"
# Our own files may hold only some rows of the token table (those seen in training), and their token ids.
TOKEN_TABLE, TOKEN_IDS = "token_embedding.weight", "token_ids"
_DROPPED = re.compile(
    r"^(input_resolution|context_length|vocab_size|n_averaged)$|\.(num_batches_tracked|position_ids)$"
    rf"|^({CLASS_VECTORS}|{CACHE_KEYS}|{CACHE_VALUES})$"
    r"|^(bert|text_model)\.pooler\.dense\.(weight|bias)$"
)
# The seed port's files hold a split copy of these tensors; the unsplit ones are out of date.
_STALE_IN_SEED = re.compile(r"\.attn\.(in_proj_(weight|bias)|out_proj\.(weight|bias))$")
# Parts of names that wrappers add: data parallel, compilation, sharding, checkpointing.
_WRAPPER = re.compile(r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# A tensor that every model of a layout has: its prefix is the prefix of all the model's tensors.
_EVERYWHERE = (
    "text_model.embeddings.token_embedding.weight",
    "token_embedding.weight",
    "text_model.embeddings.word_embeddings.weight",
    "bert.embeddings.word_embeddings.weight",
)
_LINEAR = re.compile(r"\.(in_proj_weight|(out_proj|c_fc|[qkvc]_proj|query|key|value|dense)\.weight)$")


# --- our layers <-> OpenAI's names -------------------------------------------------------------------


def openai_name(layer_name: str) -> str:
    """OpenAI's name for a tensor of our layers."""
    name = re.sub(r"\.in_proj\.(weight|bias)$", r".in_proj_\1", layer_name)
    return name.replace("._mean", ".running_mean").replace("._variance", ".running_var")


def is_linear(name: str) -> bool:
    """Whether a tensor (OpenAI's name) is a linear weight. Paddle stores those transposed, [in, out]."""
    return _LINEAR.search(name) is not None


def from_own(state: Mapping[str, np.ndarray]) -> State:
    """Convert all or some tensors of a model from our layers' names to OpenAI's names and orientation."""
    named = _renamed((openai_name(name), value) for name, value in state.items())
    return {name: value.T if is_linear(name) else value for name, value in named.items()}


def _renamed(pairs: Iterable[tuple[str, np.ndarray]]) -> State:
    """A state from (name, tensor) pairs; raises WeightsError if a name comes twice."""
    state: State = {}
    for name, value in pairs:
        if name in state:
            raise WeightsError(f"tensor {name} is there twice, under two names")
        state[name] = value
    return state


# --- foreign layouts ---------------------------------------------------------------------------------


def _from_openai(state: Mapping[str, np.ndarray]) -> State:
    return dict(state)


def _from_seed(state: Mapping[str, np.ndarray]) -> State:
    """The layout of ranchlai/clip.paddle (`utils.py` of its first commits)."""
    kept = ((name, value) for name, value in state.items() if not _STALE_IN_SEED.search(name))
    named = _renamed((openai_name(name.replace(".attn.c_proj.", ".attn.out_proj.")), v) for name, v in kept)
    return _fuse_in_proj({name: value.T if is_linear(name) else value for name, value in named.items()})


_HF_BLOCK = (
    ("self_attn.", "attn."),
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
)
_HF_PREFIXES = (
    ("text_model.encoder.layers.", "transformer.resblocks."),
    ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.", "ln_final."),
    ("text_model.embeddings.", "bert.embeddings."),  # the remaining ones of a BERT
    ("text_model.encoder.layer.", "bert.encoder.layer."),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight"),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),  # the spelling is theirs
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("text_projection.weight", "text_projection"),
    ("visual_projection.weight", "visual.proj"),
)


def _from_huggingface(state: Mapping[str, np.ndarray]) -> State:
    """The layout of `CLIPModel` and `ChineseCLIPModel` in Hugging Face's transformers."""
    renamed = {}
    for source, value in state.items():
        name = source
        for theirs, ours in _HF_PREFIXES:
            if name.startswith(theirs):
                name = ours + name[len(theirs) :]
                break
        if ".resblocks." in name:
            for theirs, ours in _HF_BLOCK:
                name = name.replace(theirs, ours)
        renamed[name] = value.T if source.endswith("_projection.weight") else value
    return _fuse_in_proj(renamed)


def _fuse_in_proj(state: State) -> State:
    """Join `attn.{q,k,v}_proj` of the transformers' blocks, [D, D] each, into `in_proj` [3D, D]."""
    fused = {}
    for name, value in state.items():
        match = re.match(r"(.*resblocks\.\d+\.attn\.)([qkv])_proj\.(weight|bias)$", name)
        if not match:
            fused[name] = value
        elif match[2] == "q":
            parts = [f"{match[1]}{part}_proj.{match[3]}" for part in "qkv"]
            missing = [part for part in parts if part not in state]
            if missing:
                raise WeightsError(f"tensor {missing[0]} is missing from these weights")
            if len({state[part].shape for part in parts}) > 1:
                raise WeightsError(f"tensors {', '.join(parts)} should have one shape")
            fused[f"{match[1]}in_proj_{match[3]}"] = np.concatenate([state[part] for part in parts])
            for part in parts:
                release(state[part])  # the joined copy is used from now on
        elif f"{match[1]}q_proj.{match[3]}" not in state:
            raise WeightsError(f"tensor {match[1]}q_proj.{match[3]} is missing from these weights")
    return fused


# --- any layout -> OpenAI's -----------------------------------------------------------------------------


def to_openai(state: Mapping[str, np.ndarray]) -> State:
    """Convert a state of any known layout to OpenAI's names and orientation; values and types stay.

    Raises:
        WeightsError: the layout is unknown, a tensor is missing or comes twice, or token ids are wrong.
    """
    bare = _without_prefix(state)
    kept = {name: value for name, value in bare.items() if not _DROPPED.search(name)}
    converted = _whole_token_table(_layout_of(kept)(kept))
    scale = converted.get("logit_scale")
    if scale is not None and scale.shape == (1,):  # the seed port stores this scalar with shape [1]
        converted["logit_scale"] = scale.reshape(())
    return converted


def _without_prefix(state: Mapping[str, np.ndarray]) -> State:
    """Remove the parts of names that wrappers and training code added."""
    named = _renamed((_WRAPPER.sub("", name), value) for name, value in state.items())
    for known in _EVERYWHERE:
        prefixes = sorted(name.removesuffix(known) for name in named if f".{name}".endswith(f".{known}"))
        if len(prefixes) > 1 and "" not in prefixes:
            below = " and ".join(prefixes)
            raise WeightsError(
                f"these are the weights of several models, under {below}: save one of them alone"
            )
        if prefixes:
            return _renamed((name.removeprefix(prefixes[0]), value) for name, value in named.items())
    return named


def _whole_token_table(state: State) -> State:
    """Expand a token table that has only the rows of `token_ids` to the whole one; other rows become zero.

    Raises:
        WeightsError: ids and rows do not match.
    """
    if TOKEN_IDS not in state:
        return state
    ids, rows = state.pop(TOKEN_IDS), state.get(TOKEN_TABLE, np.zeros(0))
    if ids.dtype.kind not in "iu" or ids.ndim != 1 or rows.ndim != 2 or len(ids) != len(rows) or not len(ids):
        raise WeightsError(f"{TOKEN_IDS} should be whole numbers, one for each row of {TOKEN_TABLE}")
    if ids[0] < 0 or ids[-1] >= TextConfig.vocab_size or (np.diff(ids.astype(np.int64)) <= 0).any():
        raise WeightsError(f"{TOKEN_IDS} should be increasing, and below {TextConfig.vocab_size}")
    table = np.zeros((TextConfig.vocab_size, rows.shape[1]), rows.dtype)
    table[ids] = rows
    return state | {TOKEN_TABLE: table}


def _layout_of(names: Iterable[str]) -> Callable[[Mapping[str, np.ndarray]], State]:
    names = list(names)
    if any(name.startswith(("text_model.", "vision_model.")) for name in names):
        return _from_huggingface
    if any(re.search(r"resblocks\.\d+\.attn\.q_proj\.weight$", name) for name in names):
        return _from_seed
    if any(name.endswith((".attn.in_proj.weight", "._mean")) for name in names):
        return from_own
    if any(name.endswith((".attn.in_proj_weight", ".attention.self.query.weight")) for name in names):
        return _from_openai
    listed = ", ".join(names[:3]) or "none"
    raise WeightsError(
        f"these are not the weights of a CLIP model: no attention layer of a known layout among {listed}, ..."
    )
