from __future__ import annotations

import numpy as np
import pytest

from clip_common.search.hits import Hit, fold

RANKED = [
    (Hit("first", 0.9, 8, 8, ""), np.array([1.0, 0.0])),
    (Hit("between", 0.8, 8, 8, ""), np.array([0.5, 0.75**0.5])),  # its cosine with the first is 0.5
    (Hit("last", 0.7, 8, 8, ""), np.array([0.0, 1.0])),
]


@pytest.mark.parametrize(
    ("threshold", "found"),
    [
        (0.5, [("first", ("between",)), ("last", ())]),
        (0.51, [("first", ()), ("between", ("last",))]),
        (0.9, [("first", ()), ("between", ()), ("last", ())]),
    ],
)
def test_a_result_is_folded_from_the_threshold_on_into_one_that_is_shown(
    threshold: float, found: list[tuple[str, tuple[str, ...]]]
) -> None:
    assert [(hit.path, hit.duplicates) for hit in fold(RANKED, 3, threshold)] == found
