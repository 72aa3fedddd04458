"""Weights files of every format give the same tensors, and hostile ones give an error and nothing else."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from safetensors.numpy import save_file

from clip_common.config import RN50, ClipConfig
from clip_common.convert import identify, infer_config, require_match, to_openai
from clip_common.errors import WeightsError
from clip_common.formats import read_state, write_safetensors
from clip_common.model import CLIP
from tests.parity import seeded
from tests.parity.seed_port import to_seed_port
from tests.parity.tiny import TINY_RN, TINY_VIT

DATA = Path(__file__).parent / "data"
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


def to_huggingface(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """OpenAI's names to those of transformers' CLIPModel, by its documentation."""
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
        if name in tops:
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


def test_hugging_face_names(tmp_path: Path) -> None:
    save_file(to_huggingface(seeded.state(TINY_VIT)), tmp_path / "hf.safetensors")
    assert_same(to_openai(read_state(tmp_path / "hf.safetensors")), seeded.state(TINY_VIT))


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
        (struct.pack("<Q", 1 << 60) + b"{" + b" " * 20, "cannot read weights"),
        (struct.pack("<Q", 2) + b"{}", "no attention of a known layout"),
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


def raw(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


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


@pytest.mark.parametrize("form", ["file.pdparams", "file.pt"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_in_a_pickle_is_executed(
    kind: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = HOSTILE[kind]
    (tmp_path / form).write_bytes(in_torch_zip(content) if form.endswith(".pt") else content)
    with pytest.raises(WeightsError):
        read_state(tmp_path / form)
    assert [file.name for file in tmp_path.iterdir()] == [form]


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
    numbers = [position for op, arg, position in pickletools.genops(pickled) if arg == 60]
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
    state = OrderedDict(a=np.arange(6.0).reshape(2, 3), b=np.float16([1]), c=np.asfortranarray(np.eye(3, 4)))
    for protocol in (2, 3, 4):
        (tmp_path / "a.pdparams").write_bytes(pickle.dumps(state, protocol))
        assert_same(read_state(tmp_path / "a.pdparams"), state)
