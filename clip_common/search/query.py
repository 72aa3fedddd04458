"""Queries: text and images combined into one embedding; and output of results as a table or JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from ..errors import RequestError
from ..predictor import Predictor
from ..system.file_names import printable, shown_name, unescape_name
from ..text.prompts import is_blank
from ..zero_shot.label_embeddings import UNKNOWN_TEXT, warn_of_unknown
from ..zero_shot.scoring import l2_normalize
from .hits import Hit

_QUOTED = re.compile(r'(?:(?<=\s)|^)["“]([^"“”]*)["”](?=[^\w"]|$)')
_HIDDEN = "\0"  # placeholder for a quoted part; does not occur in the query
_SIGN = re.compile(r"(?:^|\s)([+＋\-－−])(?=\s|$)")
_PLUS = "+＋"
_WEIGHT = re.compile(r"\^(\d+(?:\.\d*)?|\.\d+)\s*$")
_HAN = "[\u3400-\u9fff]"  # Chinese is written without spaces, so signs are as well
_NEARLY_A_SIGN = re.compile(rf"(?:^|\s)[+＋\-－−][^\W\d_]\S*|{_HAN}+[+＋\-－−]{_HAN}+")
_NEARLY_QUOTED = re.compile(r'(?:^|\s)(["“])')
_LEAST_LENGTH = 1e-6  # a sum of embeddings that is shorter has no direction


class Term(NamedTuple):
    """A text and its weight; negative to search for images that are unlike it."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Query:
    """A search query.

    Attributes:
        words: text as typed, see `terms_of`; or None.
        images: image files.
        text_weight: weight of all words together, 0 to 1; all images together get the rest.
    """

    words: str | None = None
    images: Sequence[str] = ()
    text_weight: float = 0.5

    def embedding(
        self, predictor: Predictor, like: Sequence[np.ndarray] = (), use_gpu: bool = False
    ) -> np.ndarray:
        """Compute the query embedding, [d], of unit length.

        Args:
            predictor: the model that the index was made with.
            like: embeddings of images in the index, treated like `images`.
            use_gpu: run on the GPU.

        Raises:
            ClipError: the query is empty or invalid, or an image cannot be read.
        """
        if self.words is None and not self.images and not like:
            raise RequestError("nothing to search for: give words, --image or --like")
        if not 0 <= self.text_weight <= 1:
            raise RequestError(f"--text_weight is {self.text_weight}, expected 0 to 1")
        terms = [] if self.words is None else terms_of(self.words)
        texts, images = None, list(like)
        if terms or self.images:
            asked = [term.text for term in terms]
            embeddings = predictor.embed(
                paths=self.images or None, texts=[*asked, UNKNOWN_TEXT] if asked else None, use_gpu=use_gpu
            )
            if embeddings["texts"] is not None:
                *_, unknown = embeddings["texts"]
                texts = embeddings["texts"][:-1]
                warn_of_unknown(predictor.record.name, asked, texts, unknown)
            images += [] if embeddings["images"] is None else list(embeddings["images"])
        return combined(
            texts,
            [term.weight for term in terms],
            np.stack(images) if images else None,
            self.text_weight,
        )


def terms_of(words: str) -> list[Term]:
    """Parse a query such as `a dog + a beach^0.5 - snow`.

    A `+` or `-` between spaces adds or subtracts the term after it; `^` and a number at the end of a term set
    its weight. Text in double quotes is taken literally.

    Raises:
        RequestError: a term is empty, or a sign, a weight or a quotation is malformed. Taking such text
            literally would give wrong results silently.

    Examples:
        >>> terms_of("a black-and-white dog - snow^0.5")
        [Term(text='a black-and-white dog', weight=1.0), Term(text='snow', weight=-0.5)]
        >>> terms_of('"x^2 - y"')
        [Term(text='x^2 - y', weight=1.0)]
    """
    words = words.replace(_HIDDEN, " ")
    quoted = iter(_QUOTED.findall(words))
    first, *rest = _SIGN.split(_QUOTED.sub(_HIDDEN, words))
    signed = list(zip(rest[::2], rest[1::2], strict=True))
    if first.strip() or not signed:
        signed.insert(0, ("+", first))
    terms = []
    for sign, text in signed:
        match = _WEIGHT.search(text)
        weight = float(match[1]) if match else 1.0
        text = _WEIGHT.sub("", text).strip()
        _require_plain(text, weight)
        marks = "" if text == _HIDDEN else '"'  # beside other words, the quotes are part of the text
        text = "".join(marks + next(quoted) + marks if char == _HIDDEN else char for char in text)
        if is_blank(text):
            raise RequestError(f"{words!r}: words are missing; `a dog - snow` means a dog without snow")
        terms.append(Term(text, weight if sign in _PLUS else -weight))
    return terms


def _require_plain(text: str, weight: float) -> None:
    """Reject a term that still contains something that looks like an operator.

    Raises:
        RequestError: it does; the message shows the correct form.
    """
    if "^" in text or not math.isfinite(weight):
        fault = "after ^ comes a number, at the end of a term, as in `a dog^0.5 - snow`"
    elif found := _NEARLY_A_SIGN.search(text):
        near = found[0].strip()
        fault = f"in {near!r} the sign needs spaces around it to add or take away, as in `a dog - snow`"
    elif found := _NEARLY_QUOTED.search(text):
        fault = f"a quotation begins with {found[1]} and does not end"
    else:
        return
    shown = text.replace(_HIDDEN, '"..."')
    raise RequestError(f"{shown!r}: {fault}; text in double quotes is taken literally: '\"C^2 -x\"'")


def combined(
    texts: np.ndarray | None, weights: Sequence[float], images: np.ndarray | None, text_weight: float = 0.5
) -> np.ndarray:
    """Combine text and image embeddings to one embedding, [d], of unit length.

    Args:
        texts: text embeddings [n, d], or None.
        weights: weights of the texts, n.
        images: image embeddings [m, d], or None. At least one of `texts` and `images` is needed.
        text_weight: weight of the weighted sum of the texts, 0 to 1; the mean of the images gets the rest.

    Raises:
        RequestError: the embeddings cancel each other out.
    """
    words = None if texts is None else _unit(_shares(weights).astype(texts.dtype) @ texts)
    mean = None if images is None else _unit(images.mean(axis=0))
    if words is None or mean is None:
        return mean if words is None else words  # type: ignore[return-value]
    return _unit(text_weight * words + (1 - text_weight) * mean)


def _shares(weights: Sequence[float]) -> np.ndarray:
    """Weights relative to the largest: only their ratios count, and a sum of huge ones would overflow."""
    largest = np.abs(weights).max()
    return np.asarray(weights) / (largest or 1.0)


def _unit(vector: np.ndarray) -> np.ndarray:
    if np.linalg.norm(vector) < _LEAST_LENGTH:
        raise RequestError(
            "the parts of the query cancel each other out, or the model does not know the words: give other "
            "words, or other weights"
        )
    return l2_normalize(vector)


def as_json(hits: Sequence[Hit]) -> str:
    """Results as one JSON document, in ASCII, which every console can print."""
    return json.dumps({"results": [asdict(hit) for hit in hits]})


def as_table(hits: Sequence[Hit]) -> str:
    """Results as text, one line per hit."""
    lines = []
    for hit in hits:
        more = f"  (+{len(hit.duplicates)} alike)" if hit.duplicates else ""
        name, caption = shown_name(unescape_name(hit.path)), printable(hit.caption)
        lines.append(f"{hit.score:7.4f}  {hit.width:>5} x {hit.height:<5}  {name}{more}  {caption}".rstrip())
    return "\n".join(lines) or "nothing was found"
