"""CLIP's byte-pair tokenizer: text to ids, identical to OpenAI's `simple_tokenizer.py`. No framework in here.

The vocabulary (49,408 entries) is: the 256 bytes, the 256 bytes as ends of words, 48,894 merges in order
of rank, and the start and end tokens.
"""

from __future__ import annotations

import gzip
import heapq
import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Protocol

import ftfy
import numpy as np
import regex

from ..config import BertConfig, TextConfig
from ..errors import LabelError
from .wordpiece import chinese_tokenizer

CONTEXT_LENGTH = 77
_VOCABULARY = Path(__file__).parent.parent / "data" / "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2  # the file lists more than the model was trained with
_START, _END = "<|startoftext|>", "<|endoftext|>"
_END_OF_WORD = "</w>"
_PATTERN = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)
_SPACES = regex.compile(r"\s+")
_LONGEST_KEPT = 64  # characters of a word whose ids are remembered; longer ones are hardly words
_COUNTED = 1024  # tokens up to which those of a text that is too long are counted


def _byte_symbols() -> dict[int, str]:
    """A printable symbol for each byte: itself where it is printable, else one from 256 upward."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


class Tokenizer:
    """The vocabulary and its merges; `encode` is all there is to call."""

    def __init__(self, vocabulary: Path = _VOCABULARY) -> None:
        self._byte_symbols = _byte_symbols()
        with gzip.open(vocabulary, "rt", encoding="utf-8") as file:
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
        """Ids of a text as `encode` gives them; None where there are more than `most`, found without
        encoding what follows."""
        ids: list[int] = []
        for word in _words(text):
            if len(word) > self._longest_entry * most:  # a token is an entry: at least this many of them
                return None
            ids += self._encode_word(word)
            if len(ids) > most:
                return None
        return ids

    def _encode_word(self, word: str) -> tuple[int, ...]:
        return self._encode_known(word) if len(word) <= _LONGEST_KEPT else self._merge_word(word)

    def _merge_word(self, word: str) -> tuple[int, ...]:
        """Byte-pair encoding of one word: the pair of best rank is joined, everywhere, until none is left."""
        if word in (_START, _END):
            return (self._ids[word],)
        parts = [self._byte_symbols[byte] for byte in word.encode("utf-8")]
        parts[-1] += _END_OF_WORD
        return tuple(self._ids[part] for part in _merged(parts, self._ranks))


def _merged(symbols: list[str], ranks: dict[tuple[str, str], int]) -> Iterator[str]:
    """The symbols of a word joined by rank, in n log n steps: pairs wait in a heap, by rank and by place.

    A joined symbol stands at its first place; `after` and `before` lead over the places it has swallowed.
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
        while heap and heap[0][0] == rank:  # everywhere, from the left, before the pairs that this makes
            _, place, pair = heapq.heappop(heap)
            right = after[place]
            if not alive[place] or right == end or (parts[place], parts[right]) != pair:
                continue  # one of the two is part of another symbol by now
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
    """The words of a text, one after another."""
    return (match.group() for match in _PATTERN.finditer(_clean(text)))


def _clean(text: str) -> str:
    """Broken encodings mended, HTML entities resolved twice, white space collapsed, lower case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _SPACES.sub(" ", text).strip().lower()


@cache
def default_tokenizer() -> Tokenizer:
    """The tokenizer of all of OpenAI's models, built once."""
    return Tokenizer()


class Encoder(Protocol):
    """What `tokenize` needs of a tokenizer: `Tokenizer` above, or another."""

    start: int
    end: int

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without the start and end tokens."""

    def encode_within(self, text: str, most: int) -> list[int] | None:
        """The same; None where there are more than `most`, found without encoding what follows."""


def tokenizer_of(text: TextConfig | BertConfig) -> Encoder:
    """The tokenizer that a text tower was trained with."""
    known: dict[str, Callable[[], Encoder]] = {
        "byte_pair": default_tokenizer,
        "chinese_wordpiece": chinese_tokenizer,
    }
    return known[text.tokenizer]()


def tokenize(
    texts: str | Sequence[str],
    context_length: int = CONTEXT_LENGTH,
    truncate: bool = False,
    tokenizer: Encoder | None = None,
) -> np.ndarray:
    """Texts to token ids, int64 [n, context_length]: start, text, end, then zeros.

    Args:
        texts: one text or several.
        context_length: ids per text.
        truncate: cut texts that are too long, keeping the end token.
        tokenizer: left out, that of OpenAI's models.

    Raises:
        LabelError: a text is too long and `truncate` is off, or is not a text; the message names it.

    Examples:
        >>> tokenize("a dog")[0, :5].tolist()
        [49406, 320, 1929, 49407, 0]
    """
    texts = [texts] if isinstance(texts, str) else texts
    tokenizer = tokenizer or default_tokenizer()
    ids = np.zeros((len(texts), context_length), np.int64)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise LabelError(f"text {row} is a {type(text).__name__}, expected a string")
        if truncate:
            own = tokenizer.encode(text)[: context_length - 2]
        else:
            own = _within_context(tokenizer, text, context_length)
        ids[row, : len(own) + 2] = [tokenizer.start, *own, tokenizer.end]
    return ids


def _within_context(tokenizer: Encoder, text: str, context_length: int) -> list[int]:
    """Ids of a text that must fit; one that is far too long is not encoded to its end."""
    ids = tokenizer.encode_within(text, max(_COUNTED, context_length))
    if ids is not None and len(ids) + 2 <= context_length:
        return ids
    count = f"more than {_COUNTED}" if ids is None else str(len(ids) + 2)
    raise LabelError(
        f"the text that begins {text[:60]!r} has {count} tokens with its start and end, "
        f"and the limit is {context_length}: shorten it"
    )


def lengths(ids: np.ndarray) -> Iterable[int]:
    """Tokens of each row [n, L], start and end included: the end token has the highest id."""
    return (ids.argmax(axis=1) + 1).tolist()
