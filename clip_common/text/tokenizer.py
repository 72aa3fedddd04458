"""Texts to padded token ids, by the tokenizer of a model's text tower. Does not import Paddle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from ..config import BertConfig, TextConfig
from ..errors import LabelError
from ..system.listing import values_of
from .byte_pair import byte_pair_tokenizer
from .wordpiece import chinese_tokenizer

_COUNTED = 1024  # maximum number of tokens that is counted of a text that is too long


class Tokenizer(Protocol):
    """What `BytePair` and `WordPiece` have in common.

    Attributes:
        start: id of the start token.
        end: id of the end token.
    """

    start: int
    end: int

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without the start and end tokens."""

    def encode_within(self, text: str, most: int) -> list[int] | None:
        """As `encode`, but None if there are more than `most` ids, without encoding the rest of the text."""


def tokenizer_of(text: TextConfig | BertConfig) -> Tokenizer:
    """The tokenizer of a text tower."""
    known: dict[str, Callable[[], Tokenizer]] = {
        "byte_pair": byte_pair_tokenizer,
        "chinese_wordpiece": chinese_tokenizer,
    }
    return known[text.tokenizer]()


def tokenize(
    texts: str | Iterable[str],
    context_length: int = TextConfig.context_length,
    truncate: bool = False,
    tokenizer: Tokenizer | None = None,
) -> np.ndarray:
    """Tokenize texts to ids, int64 [n, context_length]: start token, text, end token, zeros.

    Args:
        texts: one text or several.
        context_length: ids per text.
        truncate: cut texts that are too long, keeping the end token, instead of raising.
        tokenizer: default: that of OpenAI's models.

    Raises:
        LabelError: a text is too long and `truncate` is off, or is not a string; the message names it.

    Examples:
        >>> tokenize("a dog")[0, :5].tolist()
        [49406, 320, 1929, 49407, 0]
    """
    given = values_of("texts", texts, LabelError, (str,))
    tokenizer = tokenizer or byte_pair_tokenizer()
    ids = np.zeros((len(given), context_length), np.int64)
    for row, text in enumerate(given):
        if not isinstance(text, str):
            raise LabelError(f"text {row} is a {type(text).__name__}, expected a string")
        if truncate:
            own = tokenizer.encode(text)[: context_length - 2]
        else:
            own = _within_context(tokenizer, text, context_length)
        ids[row, : len(own) + 2] = [tokenizer.start, *own, tokenizer.end]
    return ids


def _within_context(tokenizer: Tokenizer, text: str, context_length: int) -> list[int]:
    """Ids of a text, without start and end tokens; raises `LabelError` if it is too long."""
    ids = tokenizer.encode_within(text, max(_COUNTED, context_length))
    if ids is not None and len(ids) + 2 <= context_length:
        return ids
    count = f"more than {_COUNTED}" if ids is None else str(len(ids) + 2)
    raise LabelError(
        f"the text that begins {text[:60]!r} has {count} tokens with its start and end, "
        f"and the limit is {context_length}: shorten it"
    )


def lengths(ids: np.ndarray) -> np.ndarray:
    """Tokens in each row of byte-pair ids [n, L], start and end included, int64 [n]: the end token has the
    highest id."""
    return ids.argmax(axis=1) + 1
