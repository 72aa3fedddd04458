"""CLIP's byte-pair tokenizer: text to ids, identical to OpenAI's `simple_tokenizer.py`. No framework in here.

The vocabulary (49,408 entries) is: the 256 bytes, the 256 bytes as ends of words, 48,894 merges in order
of rank, and the start and end tokens.
"""

from __future__ import annotations

import gzip
import html
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

import ftfy
import numpy as np
import regex

from ..errors import LabelError

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
        self._encode_word = lru_cache(maxsize=1 << 16)(self._merge_word)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without the start and end tokens."""
        return [number for word in _PATTERN.findall(_clean(text)) for number in self._encode_word(word)]

    def _merge_word(self, word: str) -> tuple[int, ...]:
        """Byte-pair encoding of one word: the pair of best rank is joined, everywhere, until none is left."""
        if word in (_START, _END):
            return (self._ids[word],)
        parts = [self._byte_symbols[byte] for byte in word.encode("utf-8")]
        parts[-1] += _END_OF_WORD
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            parts = _join(parts, best)
        return tuple(self._ids[part] for part in parts)


def _join(parts: list[str], pair: tuple[str, str]) -> list[str]:
    joined, i = [], 0
    while i < len(parts):
        if (parts[i], parts[i + 1] if i + 1 < len(parts) else None) == pair:
            joined.append(parts[i] + parts[i + 1])
            i += 2
        else:
            joined.append(parts[i])
            i += 1
    return joined


def _clean(text: str) -> str:
    """Broken encodings mended, HTML entities resolved twice, white space collapsed, lower case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _SPACES.sub(" ", text).strip().lower()


@cache
def default_tokenizer() -> Tokenizer:
    """The tokenizer of all of OpenAI's models, built once."""
    return Tokenizer()


def tokenize(
    texts: str | Sequence[str], context_length: int = CONTEXT_LENGTH, truncate: bool = False
) -> np.ndarray:
    """Texts to token ids, int64 [n, context_length]: start, text, end, then zeros.

    Args:
        texts: one text or several.
        context_length: ids per text.
        truncate: cut texts that are too long, keeping the end token.

    Raises:
        LabelError: a text is too long and `truncate` is off, or is not a text; the message names it.
    """
    texts = [texts] if isinstance(texts, str) else texts
    tokenizer = default_tokenizer()
    ids = np.zeros((len(texts), context_length), np.int64)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise LabelError(f"text {row} is a {type(text).__name__}, expected a string")
        tokens = [tokenizer.start, *tokenizer.encode(text), tokenizer.end]
        if len(tokens) > context_length:
            if not truncate:
                raise LabelError(
                    f"the text that begins {text[:60]!r} has {len(tokens)} tokens with its start and end, "
                    f"and the limit is {context_length}: shorten it"
                )
            tokens = [*tokens[: context_length - 1], tokenizer.end]
        ids[row, : len(tokens)] = tokens
    return ids


def lengths(ids: np.ndarray) -> Iterable[int]:
    """Tokens of each row [n, L], start and end included: the end token has the highest id."""
    return (ids.argmax(axis=1) + 1).tolist()
