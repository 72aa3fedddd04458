"""A file may hold the embeddings of some tokens alone; an EfficientNet is known by its shapes."""

from __future__ import annotations

import numpy as np
import pytest

from clip_common.config import MINI
from clip_common.errors import WeightsError
from clip_common.weights.schema import expected_shapes, identify, require_match
from clip_common.weights.tensor_names import TOKEN_IDS, TOKEN_TABLE, to_openai
from tests.parity import seeded


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    return seeded.state(MINI)


def some_tokens(state: dict[str, np.ndarray], ids: np.ndarray) -> dict[str, np.ndarray]:
    return state | {TOKEN_TABLE: state[TOKEN_TABLE][ids % 49408], TOKEN_IDS: ids}


def test_rows_of_some_tokens_become_the_whole_table(state: dict[str, np.ndarray]) -> None:
    ids = np.array([0, 7, 49406, 49407], np.int32)
    read = to_openai(some_tokens(state, ids))
    assert TOKEN_IDS not in read
    table, given = read[TOKEN_TABLE], state[TOKEN_TABLE]
    assert table.shape == given.shape and table.dtype == given.dtype
    np.testing.assert_array_equal(table[ids], given[ids])
    assert not np.delete(table, ids, axis=0).any()


@pytest.mark.parametrize(
    "ids",
    [[0, 7, 49408], [7, 0, 9], [0, 7, 7], [-1, 0, 7], [2**31 - 1, 3, 2**31 - 2]],
    ids=["beyond the vocabulary", "not in order", "twice", "negative", "enormous"],
)
def test_ids_that_name_no_tokens_are_refused(state: dict[str, np.ndarray], ids: list[int]) -> None:
    with pytest.raises(WeightsError, match="token_ids should be increasing, and below 49408"):
        to_openai(some_tokens(state, np.array(ids, np.int64)))


def test_ids_that_do_not_fit_the_rows_are_refused(state: dict[str, np.ndarray]) -> None:
    for ids in (np.arange(3), np.zeros((4, 1), np.int32), np.ones(4, np.float32), np.zeros(0, np.int32)):
        with pytest.raises(WeightsError, match="one for each row of token_embedding"):
            to_openai(state | {TOKEN_TABLE: state[TOKEN_TABLE][:4], TOKEN_IDS: ids})


def test_an_efficientnet_is_known_by_its_shapes(state: dict[str, np.ndarray]) -> None:
    assert identify(state) == MINI.name
    require_match(state, expected_shapes(MINI), MINI.name)
    part = {name: value for name, value in state.items() if name != "visual.blocks.2.bn_project.bias"}
    with pytest.raises(WeightsError, match=r"missing: visual\.blocks\.2\.bn_project\.bias"):
        require_match(part, expected_shapes(MINI), MINI.name)
    assert identify(state | {"visual.blocks.2.bn_project.bias": np.zeros(5, np.float32)}) is None
