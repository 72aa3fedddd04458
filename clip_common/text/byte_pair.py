"""CLIP's byte-pair tokenizer, identical to OpenAI's `simple_tokenizer.py`. Does not import Paddle.

The vocabulary has 49,408 entries: the 256 bytes, the 256 bytes as ends of words, 48,894 merges in order of
rank, and the start and end tokens.
"""

from __future__ import annotations

import gzip
import heapq
import html
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

import ftfy
import regex

_VOCABULARY = Path(__file__).parent.parent / "data" / "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2  # the file lists more than the model was trained with
_START, _END = "<|startoftext|>", "<|endoftext|>"
_END_OF_WORD = "</w>"
_PATTERN = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)
_SPACES = regex.compile(r"\s+")
_LONGEST_KEPT = 64  # characters; ids of longer words are not cached


def _byte_symbols() -> dict[int, str]:
    """A printable symbol for each byte: itself where it is printable, else one from 256 upward."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


class BytePair:
    """The byte-pair tokenizer of OpenAI's models."""

    def __init__(self) -> None:
        self._byte_symbols = _byte_symbols()
        with gzip.open(_VOCABULARY, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")[1 : _MERGES + 1]
        merges = [(first, second) for first, second in (line.split() for line in lines)]
        self._ranks = {merge: rank for rank, merge in enumerate(merges)}
        symbols = list(self._byte_symbols.values())
        entries = [*symbols, *(symbol + _END_OF_WORD for symbol in symbols)]
        entries += [first + second for first, second in merges]
        entries += [_START, _END]
        self._ids = {entry: number for number, entry in enumerate(entries)}
        self.start, self.end = self._ids[_START], self._ids[_END]
        self._longest_entry = max(map(len, self._ids))
        self._encode_known = lru_cache(maxsize=1 << 16)(self._merge_word)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without the start and end tokens."""
        return [number for word in _words(text) for number in self._encode_word(word)]

    def encode_within(self, text: str, most: int) -> list[int] | None:
        """As `encode`, but None if there are more than `most` ids, without encoding the rest of the text."""
        ids: list[int] = []
        for word in _words(text):
            if len(word) > self._longest_entry * most:  # longer than `most` tokens can be
                return None
            ids += self._encode_word(word)
            if len(ids) > most:
                return None
        return ids

    def _encode_word(self, word: str) -> tuple[int, ...]:
        return self._encode_known(word) if len(word) <= _LONGEST_KEPT else self._merge_word(word)

    def _merge_word(self, word: str) -> tuple[int, ...]:
        """Byte-pair encoding of one word: merge the pair of lowest rank, everywhere, until none is left."""
        if word in (_START, _END):
            return (self._ids[word],)
        parts = [self._byte_symbols[byte] for byte in word.encode("utf-8")]
        parts[-1] += _END_OF_WORD
        return tuple(self._ids[part] for part in _merged(parts, self._ranks))


def _merged(symbols: list[str], ranks: dict[tuple[str, str], int]) -> Iterator[str]:
    """Merge the symbols of a word by rank, in O(n log n): a heap holds pairs by rank and position.

    A merged symbol stays at its first position; `after` and `before` are links that skip merged positions.
    """
    parts, end = list(symbols), len(symbols)
    after, before = list(range(1, end + 1)), list(range(-1, end - 1))
    alive = [True] * end
    heap: list[tuple[int, int, tuple[str, str]]] = []

    def note(place: int) -> None:
        if place >= 0 and after[place] < end:
            pair = parts[place], parts[after[place]]
            if pair in ranks:
                heapq.heappush(heap, (ranks[pair], place, pair))

    for place in range(end):
        note(place)
    while heap:
        rank, joined = heap[0][0], []
        while heap and heap[0][0] == rank:  # all pairs of this rank, left to right, before new pairs
            _, place, pair = heapq.heappop(heap)
            right = after[place]
            if not alive[place] or right == end or (parts[place], parts[right]) != pair:
                continue  # one of the two has been merged already
            parts[place] += parts[right]
            alive[right], after[place] = False, after[right]
            if after[right] < end:
                before[after[right]] = place
            joined.append(place)
        for place in joined:
            note(before[place])
            note(place)
    return (part for part, there in zip(parts, alive, strict=True) if there)


def _words(text: str) -> Iterator[str]:
    """Split a text into words."""
    return (match.group() for match in _PATTERN.finditer(_clean(text)))


def _clean(text: str) -> str:
    """Fix broken encodings, resolve HTML entities twice, collapse white space, and lower the case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _SPACES.sub(" ", text).strip().lower()


@cache
def byte_pair_tokenizer() -> BytePair:
    """The tokenizer of all of OpenAI's models, created once."""
    return BytePair()
