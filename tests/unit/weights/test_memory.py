"""A large model is not in memory twice while it is loaded."""

from __future__ import annotations

import mmap
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clip_common.models.clip import CLIP
from clip_common.weights.readers import read_state, release
from tests.parity import seeded
from tests.parity.tiny import TINY_VIT
from tests.support.torch_files import in_stream, in_zip

mapped_pages = pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="counts a mapping's pages on Linux"
)


def resident(path: Path) -> int:
    """Of a mapped file, what is in memory, in kB."""
    smaps = Path("/proc/self/smaps").read_text().split(str(path))[1]
    return int(smaps.split("Rss:")[1].split()[0])


def test_what_is_filled_is_taken_from_the_state() -> None:
    state = seeded.state(TINY_VIT)
    CLIP(TINY_VIT).take_openai(state)
    assert state == {}


def test_a_state_that_is_only_read_stays_whole() -> None:
    state = seeded.state(TINY_VIT)
    CLIP(TINY_VIT).load_openai(state)
    assert set(state) == set(seeded.state(TINY_VIT))


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
@pytest.mark.parametrize("written", [in_zip, in_stream])
def test_tensors_of_torchs_files_are_given_back(
    written: Callable[[dict[str, np.ndarray]], bytes], tmp_path: Path
) -> None:
    """Also one that is turned: it is a view by strides."""
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
