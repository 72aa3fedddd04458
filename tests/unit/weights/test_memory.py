"""A large model is not in memory twice while it is loaded."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from clip_common.models.clip import CLIP
from clip_common.weights.readers import release
from tests.parity import seeded
from tests.parity.tiny import TINY_VIT


def test_what_is_filled_is_taken_from_the_state() -> None:
    state = seeded.state(TINY_VIT)
    CLIP(TINY_VIT).take_openai(state)
    assert state == {}


def test_a_state_that_is_only_read_stays_whole() -> None:
    state = seeded.state(TINY_VIT)
    CLIP(TINY_VIT).load_openai(state)
    assert set(state) == set(seeded.state(TINY_VIT))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="counts a mapping's pages on Linux")
def test_pages_of_a_mapped_file_are_given_back_and_can_be_read_again(tmp_path: Path) -> None:
    content = np.random.RandomState(0).bytes(8 << 20)
    path = tmp_path / "large.bin"
    path.write_bytes(content)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    value = np.frombuffer(memoryview(mapped)[1000:], "<f2", 3 << 20).reshape(3, -1)

    def resident() -> int:
        smaps = Path("/proc/self/smaps").read_text().split(str(path))[1]
        return int(smaps.split("Rss:")[1].split()[0])  # kB

    before = value.copy()
    assert resident() > 6000
    release(value)
    assert resident() < 3000
    assert np.array_equal(value, before, equal_nan=True)


def test_an_array_of_its_own_is_left_alone() -> None:
    value = np.ones(100_000)
    release(value)
    assert value.sum() == 100_000
