"""A large model is not in memory twice while it is loaded."""

from __future__ import annotations

import json
import mmap
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from clip_common.config import pretrained
from clip_common.models.clip import CLIP
from clip_common.weights.mapped import release
from clip_common.weights.readers import read_state
from clip_common.weights.tensor_names import to_openai
from clip_common.weights.weights_file import WeightsFile, read_whole, write_safetensors
from tests.parity import seeded
from tests.parity.tiny import TINY_VIT
from tests.support.memory import mapped_pages, resident
from tests.support.torch_files import in_stream, in_zip


def in_safetensors(state: dict[str, np.ndarray]) -> bytes:
    return save({name: np.ascontiguousarray(value) for name, value in state.items()})


def test_what_is_filled_is_taken_from_the_state() -> None:
    state = seeded.state(TINY_VIT)
    CLIP(TINY_VIT).take_openai(state)
    assert state == {}


def test_a_state_that_is_only_read_stays_whole() -> None:
    state = seeded.state(TINY_VIT)
    CLIP(TINY_VIT).load_openai(state)
    assert set(state) == set(seeded.state(TINY_VIT))


@mapped_pages
def test_checked_weights_take_no_memory(tmp_path: Path) -> None:
    config = replace(TINY_VIT, text=replace(TINY_VIT.text, vocab_size=100_000))
    path = tmp_path / "large.safetensors"
    write_safetensors(seeded.state(config), path, {})
    record = replace(pretrained("clip_vit_b32"), config=config)
    state = read_whole(WeightsFile(path, "", record))
    assert resident(path) < 1000
    assert state["token_embedding.weight"].sum() != 0
    assert resident(path) > 6000


@mapped_pages
def test_pages_of_a_mapped_file_are_given_back_and_can_be_read_again(tmp_path: Path) -> None:
    content = np.random.RandomState(0).bytes(8 << 20)
    path = tmp_path / "large.bin"
    path.write_bytes(content)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    value = np.frombuffer(memoryview(mapped)[1000:], "<f2", 3 << 20).reshape(3, -1)

    before = value.copy()
    assert resident(path) > 6000
    release(value)
    assert resident(path) < 3000
    assert np.array_equal(value, before, equal_nan=True)


def test_an_array_of_its_own_is_left_alone() -> None:
    value = np.ones(100_000)
    release(value)
    assert value.sum() == 100_000


@mapped_pages
@pytest.mark.parametrize("written", [in_zip, in_stream, in_safetensors])
def test_tensors_are_views_of_their_file_and_are_given_back(
    written: Callable[[dict[str, np.ndarray]], bytes], tmp_path: Path
) -> None:
    """Torch's files, both kinds, and safetensors; also one that is turned, which torch keeps by strides."""
    values = np.random.default_rng(0).standard_normal((3, 1000, 1000), np.float32)
    given = {"one": values[0], "turned": values[1].T, "half": values[2].astype("float16")}
    path = tmp_path / "large.pt"
    path.write_bytes(written(given))
    state = read_state(path)
    assert all(np.array_equal(state[name], value) for name, value in given.items())
    assert resident(path) > 9000
    for value in state.values():
        release(value)
    assert resident(path) < 1000


@mapped_pages
def test_parts_that_are_joined_are_given_back(tmp_path: Path) -> None:
    """Hugging Face has queries, keys and values apart: what is used is a copy."""
    block = "text_model.encoder.layers.0.self_attn"
    parts = {f"{block}.{part}_proj.weight": np.full((1000, 1000), ord(part), "float32") for part in "qkv"}
    path = tmp_path / "large.safetensors"
    path.write_bytes(save(parts))
    ((name, joined),) = to_openai(state := read_state(path)).items()
    assert name == "transformer.resblocks.0.attn.in_proj_weight" and joined.shape == (3000, 1000)
    assert len(state) == 3 and resident(path) < 1000


@mapped_pages
def test_what_is_widened_is_given_back(tmp_path: Path) -> None:
    """Of bfloat16, which numpy does not have, a copy in float32 is used."""
    entries = {
        "a": {"dtype": "BF16", "shape": [1000, 4000], "data_offsets": [0, 8_000_000]},
        "b": {"dtype": "U8", "shape": [2], "data_offsets": [8_000_000, 8_000_002]},
    }
    header = json.dumps(entries).encode()
    path = tmp_path / "large.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\x80\x3f" * 4_000_001)
    state = read_state(path)
    assert state["a"].shape == (1000, 4000) and (state["a"] == 1).all()
    assert state["b"].tolist() == [0x80, 0x3F] and resident(path) < 1000


def test_arrays_in_paddles_files_are_read_once(tmp_path: Path) -> None:
    """They are within the pickle, and nothing can be mapped: the file's size is what it takes."""
    path = tmp_path / "large.pdparams"
    path.write_bytes(pickle.dumps({str(i): np.ones((1000, 1000), np.float32) for i in range(4)}, 4))
    tracemalloc.start()
    try:
        state = read_state(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(state) == 4
    assert peak < 1.3 * path.stat().st_size
