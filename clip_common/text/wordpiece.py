"""BERT's WordPiece tokenizer for Chinese, identical to cn-clip's `bert_tokenizer.py`. Does not import Paddle.

Control characters, case and accents are removed; every Chinese character and every punctuation mark is a
separate word. A word is split greedily into the longest pieces of the vocabulary; a word that cannot be split
completely becomes [UNK].
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from pathlib import Path

_VOCABULARY = Path(__file__).parent.parent / "data" / "bert_chinese_vocab.txt"
_START, _END, _UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
_CONTINUES = "##"  # prefix of a piece that is not the first of its word
_LONGEST_WORD = 200  # characters
_CHINESE = (  # blocks of Unicode; kana and Hangul are not among them
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class WordPiece:
    """The WordPiece tokenizer of Chinese-CLIP's models."""

    def __init__(self) -> None:
        # Not splitlines: the vocabulary contains characters that it treats as line ends.
        lines = _VOCABULARY.read_text("utf-8").removesuffix("\n").split("\n")
        self._ids = {line.strip(): number for number, line in enumerate(lines)}
        self.start, self.end = self._ids[_START], self._ids[_END]
        self._encode_known = lru_cache(maxsize=1 << 16)(self._cut)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without the start and end tokens."""
        words = "".join(map(_cleaned, text)).split()
        return [number for word in words for number in self._encode_word(word)]

    def encode_within(self, text: str, most: int) -> list[int] | None:
        """As `encode`, but None if there are more than `most` ids, without encoding the rest of the text."""
        ids: list[int] = []
        for word in "".join(map(_cleaned, text)).split():
            ids += self._encode_word(word)
            if len(ids) > most:
                return None
        return ids

    def _encode_word(self, word: str) -> tuple[int, ...]:
        return self._encode_known(word) if len(word) <= _LONGEST_WORD else self._cut(word)

    def _cut(self, word: str) -> tuple[int, ...]:
        """Ids of a part of the text between two spaces."""
        parts = "".join(map(_apart, _without_accents(word.lower()))).split()
        return tuple(number for part in parts for number in self._pieces(part))

    def _pieces(self, word: str) -> list[int]:
        if len(word) > _LONGEST_WORD:
            return [self._ids[_UNKNOWN]]
        ids: list[int] = []
        start = 0
        while start < len(word):
            prefix = _CONTINUES if start else ""
            for end in range(len(word), start, -1):
                number = self._ids.get(prefix + word[start:end])
                if number is not None:
                    break
            else:
                return [self._ids[_UNKNOWN]]
            ids.append(number)
            start = end
        return ids


@lru_cache(maxsize=1 << 14)
def _cleaned(character: str) -> str:
    """Clean a character: remove control characters, and put spaces around Chinese characters."""
    if character in "\t\n\r":
        return " "
    category = unicodedata.category(character)
    if character == "\ufffd" or category in ("Cc", "Cf"):
        return ""
    if category == "Zs":
        return " "
    code = ord(character)
    is_chinese = any(first <= code <= last for first, last in _CHINESE)
    return f" {character} " if is_chinese else character


@lru_cache(maxsize=1 << 14)
def _apart(character: str) -> str:
    """Put spaces around a punctuation character."""
    is_punctuation = character in _ASCII_PUNCTUATION or unicodedata.category(character).startswith("P")
    return f" {character} " if is_punctuation else character


def _without_accents(word: str) -> str:
    return "".join(
        character
        for character in unicodedata.normalize("NFD", word)
        if unicodedata.category(character) != "Mn"
    )


@cache
def chinese_tokenizer() -> WordPiece:
    """The tokenizer of Chinese-CLIP's models, created once."""
    return WordPiece()
