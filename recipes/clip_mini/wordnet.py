"""Reads the nouns of WordNet: names, hypernyms, and the order of their senses."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# The lexicographer files of visible things, see wndb(5WN) and lexnames(5WN).
_SEEN = {3: "Tops", 5: "animal", 6: "artifact", 8: "body", 13: "food", 15: "location", 17: "object",
         18: "person", 19: "phenomenon", 20: "plant", 25: "shape", 27: "substance"}  # fmt: skip


@dataclass(frozen=True)
class Synset:
    """A meaning with its words; `parents` are its hypernyms, `is_seen` says whether it is a visible thing."""

    words: tuple[str, ...]
    parents: tuple[int, ...]
    gloss: str
    is_seen: bool


class WordNet:
    """The nouns of WordNet 3.0. The offset of a synset is also the id of ImageNet's class (n02119789).

    Attributes:
        synsets: the synsets by offset.
        senses: for each word in lower case the offsets of its synsets, the most common first.
        common: words that occur in the texts in which WordNet's authors counted senses.
    """

    def __init__(self, folder: Path) -> None:
        self.synsets = dict(_read_data(folder / "data.noun"))
        self.senses: dict[str, list[int]] = {}
        self.common: set[str] = set()
        for name, senses, is_common in _read_index(folder / "index.noun"):
            self.senses[name] = senses
            if is_common:
                self.common.add(name)

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """The offsets of the direct hyponyms of each synset."""
        below: dict[int, list[int]] = {}
        for offset, synset in self.synsets.items():
            for parent in synset.parents:
                below.setdefault(parent, []).append(offset)
        return below

    def above(self, offset: int) -> Iterator[tuple[int, int]]:
        """Yield a synset and all its ancestors with their distances, the nearest first."""
        seen, queue = {offset}, deque([(offset, 0)])
        while queue:
            here, distance = queue.popleft()
            yield here, distance
            for parent in self.synsets[here].parents:
                if parent not in seen:
                    seen.add(parent)
                    queue.append((parent, distance + 1))

    def classes_below(self, classes: Iterable[int]) -> dict[int, list[int]]:
        """For each synset above classes, the indices of these classes; a class counts as below itself."""
        below: dict[int, list[int]] = {}
        for number, offset in enumerate(classes):
            for above, _ in self.above(offset):
                below.setdefault(above, []).append(number)
        return below


def _read_data(path: Path) -> Iterator[tuple[int, Synset]]:
    for line in path.read_text("latin-1").splitlines():
        if line.startswith(" "):  # the licence
            continue
        fields, _, gloss = line.partition(" | ")
        part = fields.split()
        count = int(part[3], 16)
        words = tuple(part[4 + 2 * i].replace("_", " ") for i in range(count))
        pointers = part[4 + 2 * count + 1 :]
        parents = tuple(
            int(pointers[i + 1]) for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")
        )
        yield int(part[0]), Synset(words, parents, gloss.strip(), int(part[1]) in _SEEN)


def _read_index(path: Path) -> Iterator[tuple[str, list[int], bool]]:
    """Yield each word with its senses, the most common first, and whether it occurs in tagged texts."""
    for line in path.read_text("latin-1").splitlines():
        if not line.startswith(" "):
            part = line.split()
            count = int(part[2])
            senses = [int(offset) for offset in part[-count:]]
            yield part[0].replace("_", " "), senses, int(part[-count - 1]) > 0
