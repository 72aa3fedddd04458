"""What is searched for, words and images, to one embedding; results to a table or JSON."""

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
from ..zero_shot.scoring import l2_normalize
from .hits import Hit

_QUOTED = re.compile(r'(?:(?<=\s)|^)["“]([^"“”]*)["”](?=[^\w"]|$)')
_HIDDEN = "\0"  # stands for what is quoted; no word has it
_SIGN = re.compile(r"(?:^|\s)([+＋\-－−])(?=\s|$)")
_PLUS = "+＋"
_WEIGHT = re.compile(r"\^(\d+(?:\.\d*)?|\.\d+)\s*$")
_NEARLY_A_SIGN = re.compile(r"(?:^|\s)([+＋\-－−][^\W\d_]\S*)")
_NEARLY_QUOTED = re.compile(r'(?:^|\s)(["“])')
_LEAST_LENGTH = 1e-6  # of a sum of embeddings


class Term(NamedTuple):
    """Words, and how much they count; what is to be unlike the results has a negative weight."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        words: as typed, see `terms_of`; None for none.
        images: image files.
        text_weight: how much all words together count beside all images together, 0 to 1.
    """

    words: str | None = None
    images: Sequence[str] = ()
    text_weight: float = 0.5

    def embedding(
        self, predictor: Predictor, like: Sequence[np.ndarray] = (), use_gpu: bool = False
    ) -> np.ndarray:
        """Its embedding [d], of unit length.

        Args:
            predictor: the model that made the index.
            like: embeddings of images in the index, which count as `images` do.
            use_gpu: run on the GPU.

        Raises:
            ClipError: there is nothing to search for, or something cannot be used.
        """
        if self.words is None and not self.images and not like:
            raise RequestError("nothing to search for: give words, --image or --like")
        if not 0 <= self.text_weight <= 1:
            raise RequestError(f"--text_weight is {self.text_weight}, expected 0 to 1")
        terms = [] if self.words is None else terms_of(self.words)
        texts, images = None, list(like)
        if terms or self.images:
            made = predictor.embed(
                paths=self.images or None, texts=[term.text for term in terms] or None, use_gpu=use_gpu
            )
            texts = made["texts"]
            images += [] if made["images"] is None else list(made["images"])
        return combined(
            texts,
            [term.weight for term in terms],
            np.stack(images) if images else None,
            self.text_weight,
        )


def terms_of(words: str) -> list[Term]:
    """The terms of what a user typed: `a dog + a beach^0.5 - snow`.

    A `+` or `-` that stands alone adds or takes away what follows it; `^` and a number at the end of a term
    say how much that counts. What stands in double quotes is read as it stands.

    Raises:
        RequestError: nothing stands where words should, or a sign, a weight or a quotation is not whole: as
            words they would be searched for in silence.

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
        found = _WEIGHT.search(text)
        weight = float(found[1]) if found else 1.0
        text = _WEIGHT.sub("", text).strip()
        _require_plain(text, weight)
        marks = "" if text == _HIDDEN else '"'  # beside other words they are a part of the text
        text = "".join(marks + next(quoted) + marks if one == _HIDDEN else one for one in text)
        if is_blank(text):
            raise RequestError(f"{words!r}: words are missing; `a dog - snow` means a dog, and no snow")
        terms.append(Term(text, weight if sign in _PLUS else -weight))
    return terms


def _require_plain(text: str, weight: float) -> None:
    """Refuse what looks like an expression in what is left of a term, and is none."""
    if "^" in text or not math.isfinite(weight):
        fault = "after ^ stands a number, at the end of a term, as in `a dog^0.5 - snow`"
    elif found := _NEARLY_A_SIGN.search(text):
        fault = f"in {found[1]!r} the sign stands too near: alone it adds or takes away, as in `a dog - snow`"
    elif found := _NEARLY_QUOTED.search(text):
        fault = f"a quotation begins with {found[1]} and does not end"
    else:
        return
    shown = text.replace(_HIDDEN, '"..."')
    raise RequestError(f"{shown!r}: {fault}; what stands in double quotes is read as it stands: '\"C^2 -x\"'")


def combined(
    texts: np.ndarray | None, weights: Sequence[float], images: np.ndarray | None, text_weight: float = 0.5
) -> np.ndarray:
    """One embedding [d] of unit length.

    Args:
        texts: [n, d], or None.
        weights: of the texts, n of them.
        images: [m, d], or None; one of the two may be missing.
        text_weight: how much the texts count beside the images, 0 to 1.

    Raises:
        RequestError: nothing is left of them.
    """
    words = None if texts is None else _unit(np.asarray(weights, texts.dtype) @ texts)
    mean = None if images is None else _unit(images.mean(axis=0))
    if words is None or mean is None:
        return mean if words is None else words  # type: ignore[return-value]
    return _unit(text_weight * words + (1 - text_weight) * mean)


def _unit(vector: np.ndarray) -> np.ndarray:
    if np.linalg.norm(vector) < _LEAST_LENGTH:
        raise RequestError("what is searched for cancels itself out: give other words, or other weights")
    return l2_normalize(vector)


def as_json(hits: Sequence[Hit]) -> str:
    """One JSON document; it is ASCII, which every console can print."""
    return json.dumps({"results": [asdict(hit) for hit in hits]})


def as_table(hits: Sequence[Hit]) -> str:
    """A line for each hit."""
    lines = []
    for hit in hits:
        more = f"  (+{len(hit.duplicates)} alike)" if hit.duplicates else ""
        name, caption = shown_name(unescape_name(hit.path)), printable(hit.caption)
        lines.append(f"{hit.score:7.4f}  {hit.width:>5} x {hit.height:<5}  {name}{more}  {caption}".rstrip())
    return "\n".join(lines) or "nothing was found"
