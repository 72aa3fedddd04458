"""The figures of a comparison with OpenAI's code, and the bounds they must keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Of float32 arithmetic in another order; see issue 3 of the project and the README.
EMBEDDING_BOUND = 1e-6  # largest difference of an element of unit-length embeddings
SCORE_BOUND = 1e-5  # of a probability at logit scale 100
STAGE_BOUND = 3e-5  # of a stage's element, relative to the spread of that stage
CENTERED_BOUND = 1e-3  # as the first, after subtracting the mean over images, relative to what is left


@dataclass(frozen=True)
class Figure:
    """One line of the parity table."""

    what: str
    value: float
    bound: float | None

    @property
    def passed(self) -> bool:
        return self.bound is None or self.value <= self.bound


def compare(ours: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> list[Figure]:
    """Every figure for one architecture."""
    stages = [name for name in reference if name not in ("image", "text", "picture", "scores")]
    figures = [Figure(name, _relative(ours[name], reference[name]), STAGE_BOUND) for name in stages]
    for tower in ("image", "text"):
        a, b = ours[tower], reference[tower]
        figures += [
            Figure(f"{tower}: mean of squared feature", abs(float((a**2).mean() - (b**2).mean())), None),
            Figure(f"{tower}: feature, largest", _largest(a, b), None),
            Figure(f"{tower}: unit embedding, largest", _largest(_unit(a), _unit(b)), EMBEDDING_BOUND),
            Figure(f"{tower}: without the mean, relative", _centered(_unit(a), _unit(b)), CENTERED_BOUND),
        ]
    return [
        *figures,
        Figure(
            "image: unit embedding, largest",
            _largest(ours["picture"], reference["picture"]),
            EMBEDDING_BOUND,
        ),
        Figure("image: scores, largest", _largest(ours["scores"], reference["scores"]), SCORE_BOUND),
    ]


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.abs(a.astype("float64") - b).max())


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return _largest(a, b) / float(b.std())


def _unit(a: np.ndarray) -> np.ndarray:
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


def _centered(a: np.ndarray, b: np.ndarray) -> float:
    """Untrained towers give nearly one vector for everything, behind which a wrong block could hide."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return _largest(a, b) / float(b.std())
