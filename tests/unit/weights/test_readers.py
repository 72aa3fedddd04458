"""Weights files of every format give the same tensors, and hostile ones give an error and nothing else."""

from __future__ import annotations

import copyreg
import io
import json
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from safetensors.numpy import save, save_file

from clip_common.config import RN50, ClipConfig
from clip_common.errors import WeightsError
from clip_common.models.clip import CLIP
from clip_common.weights.readers import read_state
from clip_common.weights.schema import identify, infer_config, require_match
from clip_common.weights.tensor_names import to_openai
from clip_common.weights.weights_file import write_safetensors
from tests.parity import seeded
from tests.parity.seed_port import to_seed_port
from tests.parity.tiny import TINY_RN, TINY_VIT, TOKENS
from tests.support.layouts import to_huggingface
from tests.support.paths import DATA
from tests.support.torch_files import archive, raw, tensor, text

TINY = {"vit": TINY_VIT, "rn": TINY_RN}
EACH = pytest.mark.parametrize("config", TINY.values(), ids=TINY)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], types: bool = True) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert np.array_equal(found[name], value.astype(found[name].dtype)), name
        assert found[name].shape == value.shape, name
        assert not types or found[name].dtype == value.dtype, name


# --- every source gives the same state ---------------------------------------------------------------


@pytest.mark.parametrize(
    "file", ["vit_script.pt", "rn_script.pt", "vit_zip.pth", "vit_legacy.pth", "rn_zip.pt"]
)
def test_files_that_torch_wrote(file: str) -> None:
    """TorchScript as OpenAI publishes it, with storages of a GPU, and both kinds of plain state dict."""
    expected = seeded.state(TINY[file.split("_")[0]])
    assert_same(to_openai(read_state(DATA / file)), expected)


def test_of_a_script_only_what_it_declares_is_a_weight(tmp_path: Path) -> None:
    """A module's other tensors, a mask say, are in the pickle alike; torch's `state_dict` leaves them out."""
    with zipfile.ZipFile(DATA / "vit_script.pt") as source, zipfile.ZipFile(tmp_path / "a.pt", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith(".py"):
                content = content.replace(b'"vocab_size", ', b"").replace(b'"text_projection", ', b"")
            target.writestr(name, content)
    before, after = read_state(DATA / "vit_script.pt"), read_state(tmp_path / "a.pt")
    assert set(before) - set(after) == {"vocab_size", "text_projection"}
    assert set(after) < set(before)


def test_bfloat16_is_widened() -> None:
    found = to_openai(read_state(DATA / "rn_bfloat16.pth"))
    for name, value in seeded.state(TINY_RN).items():
        bits = value.astype("float32").view("uint32")
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype("uint32").view("float32")
        assert np.array_equal(found[name], rounded), name


@pytest.mark.parametrize("file", ["views.pth", "views_legacy.pth"])
def test_views_of_storages(file: str) -> None:
    state = read_state(DATA / file)
    base = np.arange(60, dtype="float32").reshape(6, 10)
    expected = {
        "base": base, "rows": base[2:5], "columns": base[:, 3:7:2], "turned": base.T, "scalar": base[4, 4],
        "parameter": base[1:3] * 0.5,
    }  # fmt: skip
    for name, value in expected.items():
        assert np.array_equal(state[name], value), name
    assert state["empty"].shape == (0, 3)
    assert state["bytes"].tolist() == [0, 7, 255]
    assert state["flags"].tolist() == [True, False, True]
    assert state["doubles"].tolist() == [1 / 3, -2.5]


@EACH
def test_safetensors_keeps_types(config: ClipConfig, tmp_path: Path) -> None:
    state = seeded.state(config)
    write_safetensors(state, tmp_path / "a.safetensors", {"source": "a", "licence": "b"})
    write_safetensors(
        dict(reversed(state.items())), tmp_path / "b.safetensors", {"licence": "b", "source": "a"}
    )
    assert_same(to_openai(read_state(tmp_path / "a.safetensors")), state)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@EACH
def test_our_own_pdparams(config: ClipConfig, tmp_path: Path) -> None:
    model = CLIP(config)
    model.load_openai(seeded.state(config))
    paddle.save(model.state_dict(), str(tmp_path / "own.pdparams"))
    assert_same(to_openai(read_state(tmp_path / "own.pdparams")), seeded.state(config), types=False)
    again = CLIP(config)
    again.load_dict(paddle.load(str(tmp_path / "own.pdparams")))
    for name, value in model.state_dict().items():
        assert np.array_equal(value.numpy(), again.state_dict()[name].numpy()), name


@EACH
@pytest.mark.parametrize("protocol", ["paddle", 2, 4])
def test_the_seed_ports_pdparams(config: ClipConfig, protocol: Any, tmp_path: Path) -> None:
    """Square matrices everywhere, so that a wrong orientation shows in the values alone."""
    layout = to_seed_port(seeded.state(config))
    assert "transformer.resblocks.0.attn.in_proj_weight" in layout
    path = tmp_path / "seed.pdparams"
    if protocol == "paddle":
        paddle.save(layout, str(path))
    else:
        path.write_bytes(pickle.dumps(layout, protocol=protocol))
    assert_same(to_openai(read_state(path)), seeded.state(config), types=False)


def test_ours_are_the_librarys_bytes(tmp_path: Path) -> None:
    kinds = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
    state: dict[str, np.ndarray] = {f'{kind} ä"': np.arange(6).astype(kind).reshape(2, 3) for kind in kinds}
    state |= {"turned": np.arange(6.0).reshape(2, 3).T, "scalar": np.array(3.0), "empty": np.empty((0, 3))}
    record = {"classes": ["ä", "\u2028"]}
    write_safetensors(state, tmp_path / "a.safetensors", record)
    whole = {name: np.asarray(value, order="C") for name, value in state.items()}
    assert (tmp_path / "a.safetensors").read_bytes() == save(whole, {"record": json.dumps(record)})


def test_hugging_face_names(tmp_path: Path) -> None:
    save_file(to_huggingface(seeded.state(TINY_VIT)), tmp_path / "hf.safetensors")
    assert_same(to_openai(read_state(tmp_path / "hf.safetensors")), seeded.state(TINY_VIT))


# --- what training code puts around a state dict ------------------------------------------------------

OPTIMIZER = {
    "state": {0: {"step": np.float32(3), "exp_avg": np.zeros(3, "float32")}, 1: {}},
    "param_groups": [{"lr": 1e-5, "betas": (0.9, 0.98), "params": [0, 1]}],
}


def prefixed(prefix: str, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {prefix + name: value for name, value in state.items()}


def compiled_in_part(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.replace("visual.", "visual._orig_mod.", 1): value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"state_dict": state},
        lambda state: {"model": state, "optimizer": OPTIMIZER, "epoch": 3, "best": np.float64(0.5)},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": OPTIMIZER, "loss": 0.5},
        lambda state: {
            "epoch": 5,
            "name": "run",
            "state_dict": prefixed("module.", state),
            "scaler": {"scale": 2.0},
        },
        lambda state: {"state_dict": prefixed("model.", state), "pytorch-lightning_version": "2.0"},
        lambda state: {"module": state, "global_steps": 7},
        lambda state: prefixed("module.", state),
        lambda state: prefixed("_orig_mod.", state),
        lambda state: prefixed("module._orig_mod.", state),
        lambda state: prefixed("model.clip.", state),
        lambda state: {**prefixed("module.", state), "n_averaged": np.array(3)},
        compiled_in_part,
    ],
)
@pytest.mark.parametrize("layout", ["openai", "huggingface"])
def test_wrapped_state_dicts(wrapped: Callable[[dict], dict], layout: str, tmp_path: Path) -> None:
    state = seeded.state(TINY_VIT)
    given = state if layout == "openai" else to_huggingface(state)
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(wrapped(given), 2))
    assert_same(to_openai(read_state(tmp_path / "a.pdparams")), state)


@pytest.mark.parametrize(
    ("wrapped", "words"),
    [
        (lambda state: {"model": state, "state_dict": state}, "several state dicts, state_dict, model: save"),
        (lambda state: {"ema": state, "epoch": 3}, "'ema' in the file's state dict is not a tensor: save"),
        (
            lambda state: {**prefixed("student.", state), **prefixed("teacher.", state)},
            "several models, under student. and teacher.: save one",
        ),
        (lambda state: {**prefixed("module.", state), **state}, "there twice"),
        (lambda state: {"state_dict": state, "args": Path("x")}, "names pathlib.*Save the tensors alone"),
    ],
)
def test_what_is_wrapped_otherwise_is_named_with_the_remedy(
    wrapped: Callable[[dict], dict], words: str, tmp_path: Path
) -> None:
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(wrapped(seeded.state(TINY_VIT)), 2))
    with pytest.raises(WeightsError, match=words):
        to_openai(read_state(tmp_path / "a.pdparams"))


def test_what_stands_beside_a_wrapped_model_is_not_dropped() -> None:
    state = {**prefixed("model.", seeded.state(TINY_VIT)), "criterion.weight": np.zeros(3, "float32")}
    with pytest.raises(WeightsError, match=r"not expected: criterion\.weight"):
        load(state)


def bfloat16_safetensors(bits: dict[str, np.ndarray]) -> bytes:
    """A safetensors file of bfloat16 numbers, which numpy cannot write, from their bits."""
    header, data = {}, b""
    for name, value in bits.items():
        offsets = [len(data), len(data) + value.nbytes]
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": offsets}
        data += value.tobytes()
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def test_bfloat16_in_safetensors_and_pdparams(tmp_path: Path) -> None:
    """A type that numpy lacks: safetensors name it, Paddle writes its bits as 16-bit integers."""
    state = {name: value.astype("<f4") for name, value in seeded.state(TINY_VIT).items()}
    bits = {name: np.asarray(value.view("<u4") >> 16, "<u2") for name, value in state.items()}
    expected = {
        name: np.asarray(value.astype("<u4") << 16, "<u4").view("<f4") for name, value in bits.items()
    }
    (tmp_path / "a.safetensors").write_bytes(bfloat16_safetensors(bits))
    assert_same(to_openai(read_state(tmp_path / "a.safetensors")), expected)
    model = CLIP(TINY_VIT)
    model.load_openai(expected)
    halves = {name: tensor.astype("bfloat16") for name, tensor in model.state_dict().items()}
    paddle.save(halves, str(tmp_path / "a.pdparams"))
    assert_same(to_openai(read_state(tmp_path / "a.pdparams")), expected)


def from_own(config: ClipConfig, folder: Path) -> Path:
    model = CLIP(config)
    model.load_openai(seeded.state(config))
    paddle.save(model.state_dict(), str(folder / "own.pdparams"))
    return folder / "own.pdparams"


def from_seed_port(config: ClipConfig, folder: Path) -> Path:
    paddle.save(to_seed_port(seeded.state(config)), str(folder / "seed.pdparams"))
    return folder / "seed.pdparams"


def from_huggingface(config: ClipConfig, folder: Path) -> Path:
    save_file(to_huggingface(seeded.state(config)), folder / "hf.safetensors")
    return folder / "hf.safetensors"


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("vit", "vit_script.pt"), ("vit", "vit_legacy.pth"), ("vit", from_own), ("vit", from_seed_port),
        ("vit", from_huggingface), ("rn", "rn_script.pt"), ("rn", from_own), ("rn", from_seed_port),
    ],
)  # fmt: skip
def test_every_source_computes_what_openais_code_does(kind: str, source: Any, tmp_path: Path) -> None:
    """Features that OpenAI's code gave on torch: no mistake made on the way in and out can cancel here."""
    config = TINY[kind]
    path = DATA / source if isinstance(source, str) else source(config, tmp_path)
    model = CLIP(config)
    model.load_openai(to_openai(read_state(path)))
    model.eval()
    golden = np.load(DATA / "features.npz")
    with paddle.no_grad():
        found = {
            "image": model.encode_image(paddle.to_tensor(seeded.pixels(config))).numpy(),
            "text": model.encode_text(paddle.to_tensor(TOKENS)).numpy(),
        }
    for tower, features in found.items():
        expected = golden[f"{config.name} {tower}"]
        size = np.linalg.norm(expected, axis=1, keepdims=True)
        assert np.abs((features - expected) / size).max() < 1e-6, tower


@EACH
def test_linear_weights_are_turned_and_no_others(config: ClipConfig) -> None:
    state = seeded.state(config)
    model = CLIP(config)
    model.load_openai(state)
    block = model.transformer.resblocks[1]
    name = "transformer.resblocks.1."
    for layer, linear in ((block.attn.out_proj, "attn.out_proj"), (block.mlp.c_fc, "mlp.c_fc")):
        assert np.array_equal(layer.weight.numpy(), state[f"{name}{linear}.weight"].T)
    assert np.array_equal(block.attn.in_proj.weight.numpy(), state[f"{name}attn.in_proj_weight"].T)
    assert np.array_equal(model.text_projection.numpy(), state["text_projection"])  # square, and as it is
    if config is TINY_VIT:
        assert np.array_equal(model.visual.proj.numpy(), state["visual.proj"])
    else:
        pool = model.visual.attnpool
        assert np.array_equal(pool.q_proj.weight.numpy(), state["visual.attnpool.q_proj.weight"].T)


@EACH
@pytest.mark.parametrize("stale", ["absent", "zero"])
def test_the_seed_ports_unsplit_tensors_are_never_used(config: ClipConfig, stale: str) -> None:
    layout = to_seed_port(seeded.state(config))
    unsplit = [name for name in layout if ".attn.in_proj_" in name or ".attn.out_proj." in name]
    assert len(unsplit) >= 8
    for name in unsplit:
        layout[name] = layout[name] * 0
    kept = {name: value for name, value in layout.items() if stale == "zero" or name not in unsplit}
    assert_same(to_openai(kept), seeded.state(config), types=False)


# --- strictness --------------------------------------------------------------------------------------


def load(state: dict[str, np.ndarray], config: ClipConfig = TINY_VIT) -> None:
    CLIP(config).load_openai(to_openai(state))


@pytest.mark.parametrize("name", ["visual.proj", "logit_scale", "transformer.resblocks.1.attn.in_proj_bias"])
def test_tensors_are_named(name: str) -> None:
    state = seeded.state(TINY_VIT)
    with pytest.raises(WeightsError, match=f"missing: {name}"):
        load({key: value for key, value in state.items() if key != name})
    with pytest.raises(WeightsError, match="not expected: surprise"):
        load({**state, "surprise": np.zeros(3)})
    with pytest.raises(WeightsError, match=rf"of the wrong shape: {name} is \[3, 5\]"):
        load({**state, name: np.zeros((3, 5), "float32")})


def test_only_the_listed_names_are_dropped() -> None:
    state = seeded.state(TINY_RN)
    listed = ["input_resolution", "context_length", "vocab_size", "visual.bn1.num_batches_tracked"]
    load({**state, **{name: np.array(7) for name in listed}}, TINY_RN)
    for name in ("visual.context_length", "attn_mask", "num_batches_tracked"):
        with pytest.raises(WeightsError, match=f"not expected: {name}"):
            load({**state, name: np.array(7)}, TINY_RN)


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_a_missing_part_of_split_attention_is_named(part: str) -> None:
    layout = to_seed_port(seeded.state(TINY_VIT))
    name = f"transformer.resblocks.1.attn.{part}_proj.weight"
    del layout[name]
    with pytest.raises(WeightsError, match=name):
        to_openai(layout)


def test_a_missing_part_of_hugging_faces_attention_is_named() -> None:
    layout = to_huggingface(seeded.state(TINY_VIT))
    del layout["vision_model.encoder.layers.0.self_attn.k_proj.bias"]
    with pytest.raises(
        WeightsError, match=r"visual\.transformer\.resblocks\.0\.attn\.k_proj\.bias is missing"
    ):
        to_openai(layout)


@pytest.mark.parametrize("layout", ["own", "seed"])
def test_a_tensor_that_is_there_twice_is_named(layout: str, tmp_path: Path) -> None:
    """Under two names that mean the same: one would be lost without a word."""
    state = read_state((from_own if layout == "own" else from_seed_port)(TINY_RN, tmp_path))
    state["visual.bn1.running_mean"] = state["visual.bn1._mean"] * 0
    with pytest.raises(WeightsError, match=r"visual\.bn1\.running_mean"):
        load(state, TINY_RN)


@pytest.mark.parametrize("kind", ["int64", "bool", "complex64", "uint16"])
def test_tensors_that_are_no_real_numbers_are_named(kind: str) -> None:
    state = seeded.state(TINY_VIT)
    with pytest.raises(WeightsError, match=rf"visual\.proj.*{kind}"):
        load({**state, "visual.proj": np.ones((16, 16), kind)})


@pytest.mark.parametrize(
    "name", ["visual.positional_embedding", "positional_embedding", "visual.conv1.weight"]
)
def test_a_tensor_without_elements_is_named(name: str) -> None:
    state = seeded.state(TINY_VIT)
    with pytest.raises(WeightsError, match=f"of the wrong shape: {name}"):
        load({**state, name: state[name][:0]})


def test_a_failed_load_changes_nothing() -> None:
    model = CLIP(TINY_VIT)
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError):
        model.load_dict({**seeded.state(TINY_VIT), "surprise": np.zeros(3)})
    assert all(np.array_equal(value.numpy(), before[name]) for name, value in model.state_dict().items())


def test_weights_of_another_backbone_are_called_by_their_name() -> None:
    shapes = {name: value.shape for name, value in seeded.state(TINY_VIT).items()}
    state = {name: np.broadcast_to(np.float32(0), shape) for name, shape, _ in seeded._tensors(RN50)}
    state["logit_scale"] = np.array(0.0)
    assert identify(state) == "RN50"
    with pytest.raises(WeightsError, match=r"do not fit ViT-B/32 \(these are the weights of RN50\)"):
        require_match(state, shapes, "ViT-B/32")


@EACH
def test_dimensions_are_read_from_the_tensors(config: ClipConfig) -> None:
    found = infer_config(seeded.state(config))
    assert (found.embed_dim, found.image_resolution) == (config.embed_dim, config.image_resolution)
    assert vars(found.vision) == vars(config.vision)
    assert vars(found.text) == vars(config.text)


# --- files that are not what they should be ----------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, these are weights", "unknown format"),
        (b"PK\x03\x04 not a zip file", "not a zip file"),
        (b"\x80\x02}q\x00.", "no state dict"),
        (b"\x80\x02K\x01.", "no state dict"),
        (pickle.dumps({"a": 1}, 2), "'a' in the file's state dict is not a tensor"),
        (pickle.dumps({1: np.zeros(3)}, 2), "no attention layer of a known layout among 1"),
        (struct.pack("<Q", 1 << 60) + b"{" + b" " * 20, "cannot read weights"),
        (struct.pack("<Q", 2) + b"{}", "no attention layer of a known layout"),
    ],
)
def test_what_is_no_weights_file(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        to_openai(read_state(path))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.pt", tmp_path):
        with pytest.raises(WeightsError, match=f"cannot read weights {path}"):
            read_state(path)


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function: Callable, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple:
        return self.call


TRACE = "executed_by_a_pickle"
HOSTILE: dict[str, bytes] = {
    "os.system": pickle.dumps({"a": Call(os.system, f"touch {TRACE}")}),
    "os.system, protocol 2": pickle.dumps({"a": Call(os.system, f"touch {TRACE}")}, 2),
    "eval": pickle.dumps({"a": Call(eval, f"open({TRACE!r}, 'w')")}, 2),
    "Popen": raw(b"csubprocess\nPopen\n(X\x05\x00\x00\x00touchX\x14\x00\x00\x00", TRACE.encode(), b"l\x85R"),
    "getattr": pickle.dumps({"a": Call(getattr, "x", "join")}, 2),
    "paddle.save": pickle.dumps({"a": Call(paddle.save, {}, TRACE)}, 2),
    "numpy.save": pickle.dumps({"a": Call(np.save, TRACE, 1)}, 2),
    "numpy.load": raw(b"cnumpy\nload\n", b"X\x01\x00\x00\x00a\x85R"),
    "INST": b"(S'touch x'\nios\nsystem\n.",
    "OBJ": raw(b"(cos\nsystem\nX\x07\x00\x00\x00touch xo"),
    "NEWOBJ": raw(b"cos\nsystem\n(X\x07\x00\x00\x00touch xt\x81"),
    "extension registry": raw(b"\x82\x01"),
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.",
    "dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.",
    "state of a class": raw(b"ccollections\nOrderedDict\n}X\x05\x00\x00\x00itemsK\x01sb"),
    "state of a function": raw(b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__)s\x86b"),
    "call of a dtype": raw(b"ctorch\nFloatStorage\n)R"),
    "call of a string": raw(b"cnumpy\nndarray\n)R"),
    "nested tuple as a key": raw(b"}", b")" + b"2\x86" * 60, b"K\x01s"),
    "huge memo index": raw(b"}r\xff\xff\xff\x7f"),
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"abc.",
    "persistent id": raw(b"X\x01\x00\x00\x00aQ"),
    "no stop": b"\x80\x02}",
    "empty stack": raw(b"s"),
    "set of sets": b"\x80\x04\x8f(\x8f\x90.",
}  # fmt: skip


def in_torch_zip(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", b"\0" * 16)
    return stream.getvalue()


LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19." + raw(b"M\xe9\x03") + raw(b"}")
WRAPPED: dict[str, Callable[[bytes], bytes]] = {
    "file.pdparams": lambda content: content,
    "file.pt": in_torch_zip,
    "file.pth": LEGACY.__add__,
}


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_in_a_pickle_is_executed(
    kind: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = HOSTILE[kind]
    (tmp_path / form).write_bytes(WRAPPED[form](content))
    with pytest.raises(WeightsError):
        read_state(tmp_path / form)
    assert [file.name for file in tmp_path.iterdir()] == [form]


@pytest.mark.parametrize("kind", ["os.system", "os.system, protocol 2", "eval", "registered extension"])
def test_the_hostile_pickles_are_live(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own reader runs them, so that the tests above show something."""
    monkeypatch.chdir(tmp_path)
    content = HOSTILE.get(kind, raw(b"\x82\xf0", text(f"touch {TRACE}"), b"\x85R"))
    copyreg.add_extension("os", "system", 0xF0)
    try:
        with pytest.raises(WeightsError):
            (tmp_path / "a.pt").write_bytes(in_torch_zip(content))
            read_state(tmp_path / "a.pt")
        assert not (tmp_path / TRACE).exists()
        pickle.loads(content)
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
    assert (tmp_path / TRACE).exists()


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("name", ["evil run", "evil.inner run", "__torch__ evil", "torch._utils evil"])
def test_nothing_that_a_pickle_names_is_imported(
    name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, attribute = name.split()
    package = tmp_path / "evil"
    package.mkdir()
    for file in ("__init__.py", "inner.py"):
        (package / file).write_text(f"open({str(tmp_path / TRACE)!r}, 'w')\ndef run(*_): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    content = raw(b"}", text("a"), f"c{module}\n{attribute}\n".encode(), b")Rs")
    (tmp_path / form).write_bytes(WRAPPED[form](content))
    with pytest.raises(WeightsError):
        read_state(tmp_path / form)
    assert "evil" not in sys.modules
    assert not (tmp_path / TRACE).exists()


@pytest.mark.parametrize(
    "name",
    ["builtins exec", "builtins __import__", "builtins open", "importlib import_module", "nt system",
     "subprocess check_output", "operator attrgetter", "functools partial", "paddle load", "paddle.hub load",
     "paddle.utils.cpp_extension load", "numpy fromfile", "numpy.lib.npyio load", "numpy ndarray.tofile",
     "numpy.core.multiarray fromfile", "torch load", "torch.hub load", "torch._utils _rebuild_tensor_v3",
     "torch._utils _rebuild_tensor.__globals__", "torch.storage _load_from_bytes",
     "clip_common.system.cache prune",
     "collections OrderedDict.update", "pickle loads", "copyreg _reconstructor", "_codecs decode"],
)  # fmt: skip
def test_a_name_that_is_not_listed_is_refused_by_name(name: str, tmp_path: Path) -> None:
    module, attribute = name.split()
    for content in (
        raw(f"c{module}\n{attribute}\n".encode(), b")R"),
        b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(attribute)])
        + attribute.encode() + b"\x93)R.",
    ):  # fmt: skip
        (tmp_path / "a.pdparams").write_bytes(content)
        with pytest.raises(WeightsError, match=rf"a\.pdparams: this pickle names {module}\.{attribute}, "):
            read_state(tmp_path / "a.pdparams")


def test_a_refusal_names_what_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(in_torch_zip(HOSTILE["os.system, protocol 2"]))
    with pytest.raises(WeightsError, match=r"a\.pt: this pickle names posix\.system"):
        read_state(tmp_path / "a.pt")


def test_the_reader_is_left_as_it_was(tmp_path: Path) -> None:
    """A hostile file must not change how the next one is read."""
    for kind, content in HOSTILE.items():
        (tmp_path / "hostile.pdparams").write_bytes(content)
        with pytest.raises(WeightsError):
            read_state(tmp_path / "hostile.pdparams"), kind
    assert_same(to_openai(read_state(DATA / "vit_script.pt")), seeded.state(TINY_VIT))


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(DATA / "vit_zip.pth") as source, zipfile.ZipFile(tmp_path / "z.pt", "w") as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info), zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="is compressed"):
        read_state(tmp_path / "z.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("archive/data.pkl", b"\0" * (65 << 20))
    with pytest.raises(WeightsError, match="too large"):
        read_state(tmp_path / "bomb.pt")


@pytest.mark.parametrize("count", [-1, 10**15])
def test_sizes_are_checked_against_the_file(count: int, tmp_path: Path) -> None:
    content = (DATA / "views.pth").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    numbers = [position for _, arg, position in pickletools.genops(pickled) if arg == 60 and position]
    assert numbers
    digits = count.to_bytes(8, "little", signed=True)
    changed = pickled[: numbers[0]] + b"\x8a\x08" + digits + pickled[numbers[0] + 2 :]
    (tmp_path / "a.pt").write_bytes(in_torch_zip(changed))
    with pytest.raises(WeightsError):
        read_state(tmp_path / "a.pt")


@pytest.mark.parametrize("file", sorted(path.name for path in DATA.iterdir()))
def test_damaged_files_give_an_error_or_a_state(file: str, tmp_path: Path) -> None:
    whole = (DATA / file).read_bytes()
    random = np.random.RandomState(len(whole))
    for number in range(60):
        damaged = bytearray(whole)
        if number % 3 == 0:
            del damaged[random.randint(len(whole)) :]
        else:  # half of the damage near the ends, where pickles and directories are
            span = len(whole) if number % 3 == 1 else min(len(whole), 3000)
            for place in random.randint(0, span, 4):
                damaged[place if number % 2 else -place - 1] = random.randint(256)
        (tmp_path / "damaged").write_bytes(bytes(damaged))
        try:
            state = read_state(tmp_path / "damaged")
        except WeightsError as error:
            assert "damaged" in str(error)  # the file's name
        else:
            assert all(isinstance(value, np.ndarray) for value in state.values())


def test_ordered_dicts_and_protocols(tmp_path: Path) -> None:
    state: dict[str, np.ndarray] = OrderedDict(
        a=np.arange(6.0).reshape(2, 3), b=np.array([1], np.float16), c=np.asfortranarray(np.eye(3, 4))
    )
    for protocol in (2, 3, 4):
        (tmp_path / "a.pdparams").write_bytes(pickle.dumps(state, protocol))
        assert_same(read_state(tmp_path / "a.pdparams"), state)


# --- files that would take all the memory, or for ever -----------------------------------------------


@pytest.mark.parametrize(
    ("count", "shape", "stride", "offset"),
    [
        (4, (5,), (1,), 0),
        (4, (2,), (4,), 0),
        (4, (2, 2), (3, 1), 0),
        (4, (2,), (1,), 3),
        (4, (1,), (1,), 4),
        (4, (1,), (1,), 1 << 30),
        (4, (2,), (1,), -1),
        (4, (2,), (-1,), 3),
        (4, (-2,), (1,), 0),
        (4, (2, 2), (1,), 0),
        (8, (8,), (1,), 0),  # the file's storage has four numbers, whatever the pickle says
        (-1, (1,), (1,), 0),
    ],
)
def test_a_tensor_never_reaches_beyond_its_storage(
    count: int, shape: tuple[int, ...], stride: tuple[int, ...], offset: int, tmp_path: Path
) -> None:
    """What lies beyond is the process's own memory."""
    named = raw(b"}", text("a"), tensor("FloatStorage", count, shape, stride, offset), b"s")
    (tmp_path / "a.pt").write_bytes(archive({"data.pkl": named, "data/0": bytes(16)}))
    with pytest.raises(WeightsError):
        read_state(tmp_path / "a.pt")


def test_the_whole_of_a_storage_can_be_reached(tmp_path: Path) -> None:
    """The last numbers that the test above leaves out."""
    values = np.arange(4, dtype="<f4")
    for shape, stride, offset in (((4,), (1,), 0), ((2, 2), (1, 2), 0), ((2,), (2,), 1), ((1,), (9,), 3)):
        named = raw(b"}", text("a"), tensor("FloatStorage", 4, shape, stride, offset), b"s")
        (tmp_path / "a.pt").write_bytes(archive({"data.pkl": named, "data/0": values.tobytes()}))
        steps = [4 * step for step in stride]
        expected = np.lib.stride_tricks.as_strided(values[offset:], shape, steps)
        assert np.array_equal(read_state(tmp_path / "a.pt")["a"], expected)


def expanded(kind: str) -> bytes:
    """One number seen as a matrix of 268 million."""
    side = 1 << 14
    named = raw(b"}", text("a.attn.in_proj_weight"), tensor(kind, 1, (side, side), (0, 0)), b"s")
    return archive({"data.pkl": named, "data/0": bytes(4)})


def widened_again_and_again() -> bytes:
    """A megabyte of bfloat16 that three hundred tensors share; widened for each it would be 600 MB."""
    count = 1 << 19
    items = b"".join(
        text(f"{i}.attn.in_proj_weight") + tensor("BFloat16Storage", count, (count,), (1,))
        for i in range(300)
    )
    return archive({"data.pkl": raw(b"}(", items, b"u"), "data/0": bytes(2 * count)})


def nested_tuple() -> bytes:
    """A tuple of itself twice, sixty times over: small to keep, and to hash the work of 2 ** 60."""
    return b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))


def nested_modules(depth: int, name: str) -> bytes:
    """TorchScript modules inside each other; the name of the innermost tensor is made of all of theirs."""
    opened = b"c__torch__\nM\nq\x00" + b")\x81}" + text(name) + b"q\x01"
    opened += (b"h\x00)\x81}h\x01") * (depth - 1)
    return archive({"data.pkl": raw(opened, b"N", b"sb" * depth)})


def code(source: bytes, files: int = 1) -> bytes:
    """A TorchScript archive without a tensor, with so much code."""
    module = raw(b"c__torch__\nM\n)\x81}b")
    return archive({"data.pkl": module, **{f"code/{i}.py": source for i in range(files)}}, packed=True)


def test_the_code_in_an_archive_is_limited_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(code(bytes(23 << 20), files=3))  # a thousandth of it in the file
    with pytest.raises(WeightsError, match="too large"):
        read_state(tmp_path / "a.pt")


BOMBS: dict[str, Callable[[], bytes]] = {
    "a number as a matrix": lambda: expanded("FloatStorage"),
    "a bfloat16 number as a matrix": lambda: expanded("BFloat16Storage"),
    "a storage widened often": widened_again_and_again,
    "a key that takes for ever to hash": lambda: raw(
        b"ccollections\nOrderedDict\n]](", nested_tuple(), b"K\x01ea\x85R"
    ),
    "numbers for keys that have one place in a table": lambda: raw(
        b"}(",
        *(
            b"\x8a\x0a" + (i * sys.hash_info.modulus).to_bytes(10, "little") + b"N"
            for i in range(1, 150_000)
        ),
        b"u",
    ),
    "a storage's key that takes for ever to hash": lambda: (
        LEGACY
        + raw(b"}", text("a"), tensor("FloatStorage", 1, (1,), (1,)), b"s")
        + raw(b"](", nested_tuple(), b"e")
    ),
    "a text encoded often": lambda: raw(
        b"](c_codecs\nencode\nq\x00",
        text("x" * 2_000_000), text("latin1"), b"\x86q\x01R" + b"h\x00h\x01R" * 300, b"e",
    ),
    "a packed pickle": lambda: archive({"data.pkl": bytes(300 << 20)}, packed=True),
    "code of empty lines": lambda: code(b"class M(Module):\n" + b"\n" * 300_000),
    "modules of long names": lambda: nested_modules(3000, "m" * 1_000_000),
    "modules of modules": lambda: nested_modules(400_000, "m"),
}  # fmt: skip
_READ_IN_A_PROCESS = """
import sys
from pathlib import Path
from clip_common.weights.tensor_names import to_openai
from clip_common.errors import WeightsError
from clip_common.weights.weights_file import write_safetensors
from clip_common.weights.readers import read_state

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

path, before = Path(sys.argv[1]), peak()
try:
    write_safetensors(to_openai(read_state(path)), path.with_suffix(".safetensors"), {})
except WeightsError:
    pass
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's peak from /proc")
@pytest.mark.parametrize("kind", BOMBS)
def test_small_files_take_little_memory_and_time(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(BOMBS[kind]())
    command = [
        sys.executable,
        "-c",
        _READ_IN_A_PROCESS,
        str(path),
    ]  # one that hangs can only be ended from outside
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 300  # MB


@pytest.mark.parametrize(
    "file", ["vit_script.pt", "rn_zip.pt", "rn_bfloat16.pth", "views.pth", "own", "safetensors"]
)
def test_damaged_pickles_in_whole_archives(file: str, tmp_path: Path) -> None:
    """Damage that no checksum tells: the pickle is changed, then packed again."""
    pickled, packed = opened(file, tmp_path)
    random = np.random.RandomState(len(pickled))
    tracemalloc.start()
    for _ in range(50):
        damaged = bytearray(pickled)
        for place in random.randint(0, len(damaged), random.randint(1, 6)):
            damaged[place] = random.choice([random.randint(256), *b"(.NRbstuq]}\x81\x85\xff"])
        (tmp_path / "damaged").write_bytes(packed(bytes(damaged)))
        try:
            state = read_state(tmp_path / "damaged")
        except WeightsError:
            continue
        size = (tmp_path / "damaged").stat().st_size
        for name, value in state.items():
            assert isinstance(name, str)
            assert isinstance(value, np.ndarray)
            assert value.nbytes <= 2 * size  # twice, where bfloat16 is widened
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20


def opened(file: str, folder: Path) -> tuple[bytes, Callable[[bytes], bytes]]:
    """A good file's pickle (or header), and how to put another in its place."""
    if file == "own":
        return from_own(TINY_VIT, folder).read_bytes()[:6000], lambda head: head + b"."
    if file == "safetensors":
        save_file(seeded.state(TINY_VIT), folder / "a.safetensors")
        content = (folder / "a.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        assert "visual.proj" in json.loads(content[8 : 8 + length])
        return content[: 8 + length], lambda head: head + content[8 + length :]
    with zipfile.ZipFile(DATA / file) as source:
        members = {name: source.read(name) for name in source.namelist()}
    name = next(name for name in members if name.endswith("/data.pkl"))

    def packed(pickled: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as target:
            for member, content in members.items():
                target.writestr(member, pickled if member == name else content)
        return stream.getvalue()

    return members[name], packed
