"""Label sets and prompt templates: the built-in ones as data, the user's checked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from ..config import BertConfig, Pretrained, TextConfig
from ..errors import LabelError
from ..system.listing import listed
from ..system.log import logger
from .tokenizer import tokenizer_of

_DATA = Path(__file__).parent.parent / "data"
LABEL_SETS = {
    "imagenet": "imagenet_classes.txt",
    "everyday": "everyday_names.txt",
    "everyday_zh": "everyday_names_zh.txt",
}
# OpenAI's prompt engineering notebook: the 80 of the paper, and the 7 that did best together; and some in
# Chinese, written for this project.
TEMPLATE_SETS = {
    "openai": "templates_openai.txt",
    "openai7": "templates_openai7.txt",
    "zh": "templates_zh.txt",
}
_COMMAS = re.compile("[,，、]")
_BARE = ("{}",)
_LONG = 512  # tokens, more than any model reads
_JOINERS = "\u200c\u200d"  # which make one emoji of two, and words of Persian


@dataclass(frozen=True)
class Prompts:
    """What an image is compared with: labels, each put into every template.

    No template at all means classes that travel with the weights, see `weights/class_head.py`.
    """

    labels: tuple[str, ...]
    templates: tuple[str, ...]

    def texts(self) -> list[str]:
        """Every label in every template, label by label; [labels * templates]."""
        return [template.replace("{}", label) for label in self.labels for template in self.templates]


def prompts_for(
    record: Pretrained, labels: Iterable[str] | None, templates: str | Iterable[str] | None
) -> Prompts:
    """The prompts of a call: what is left out is filled from the module's record.

    Args:
        record: names the module's default labels and templates.
        labels: None for the module's default set.
        templates: one template, several, the name of a set, or None: the module's for its own labels,
            and for given labels the label as it stands.

    Raises:
        LabelError: labels that are missing, blank, repeated or not text; templates without a `{}`.
    """
    if labels is None:
        chosen = read_lines(LABEL_SETS[record.default_labels])
        default_templates = record.default_templates
    else:
        chosen = check_labels(labels)
        default_templates = _BARE
    return Prompts(chosen, default_templates if templates is None else template_texts(templates))


@cache
def read_lines(file: str) -> tuple[str, ...]:
    """The lines of a data file of this package."""
    return tuple((_DATA / file).read_text("utf-8").splitlines())


def split_labels(text: str) -> list[str]:
    """Labels that a person typed in one line: commas stand between them, Latin or Chinese."""
    return [label.strip() for label in _COMMAS.split(text)]


def check_labels(given: Iterable[str]) -> tuple[str, ...]:
    """Labels as given, if they are usable."""
    if isinstance(given, str):
        raise LabelError(f"labels is a single string ({given[:60]!r}), expected a list of strings")
    labels = listed("labels", given, LabelError)
    seen: dict[str, int] = {}
    for i, label in enumerate(labels):
        if not isinstance(label, str):
            raise LabelError(f"label {i} is a {type(label).__name__}, expected a string")
        if is_blank(label):
            raise LabelError(f"label {i} is blank: remove it")
        first = seen.setdefault(label.strip(), i)
        if first != i:
            raise LabelError(f"label {label.strip()!r} is given twice, as label {first} and as label {i}")
    return tuple(labels)


def is_blank(text: str) -> bool:
    """Whether nothing is in a text but spaces and characters that nobody sees."""
    return not _seen(text).strip()


def _seen(text: str) -> str:
    """A text without the characters that nobody sees."""
    if text.isascii() and text.isprintable():
        return text
    hidden = (mark for mark in set(text) if unicodedata.category(mark) in ("Cc", "Cf") and not mark.isspace())
    return text.translate(dict.fromkeys(map(ord, set(hidden) - set(_JOINERS))))


def require_distinct(labels: tuple[str, ...], text: TextConfig | BertConfig) -> None:
    """Check that no two labels are the same text to a model, which would give each a part of one score.

    Args:
        labels: as `check_labels` returns them.
        text: the model's text tower, to which `A DOG` may be `a dog`.

    Raises:
        LabelError: naming the two.
    """
    if same := _same_texts(labels, text):
        raise LabelError(f"{_described('label', labels, *same)}: remove one of them")


@lru_cache(maxsize=64)
def warn_of_same_classes(classes: tuple[str, ...], text: TextConfig | BertConfig) -> None:
    """Say once which two classes of a data set are the same text to a model."""
    if same := _same_texts(classes, text):
        logger.warning("%s: by name nothing tells them apart", _described("class", classes, *same))


@lru_cache(maxsize=64)
def _same_texts(labels: tuple[str, ...], text: TextConfig | BertConfig) -> tuple[int, int] | None:
    """The first two that have the same tokens, or differ in nothing that is seen; not those spelled alike."""
    encoder = tokenizer_of(text)
    known: dict[tuple[int, ...], int] = {}
    for i, label in enumerate(labels):
        ids = encoder.encode_within(_seen(label), _LONG)
        if ids is None:  # too long: an error of its own, later
            continue
        first = known.setdefault(tuple(ids), i)
        if label.strip() != labels[first].strip():
            return first, i
    return None


def _described(what: str, labels: tuple[str, ...], first: int, second: int) -> str:
    pair = labels[first], labels[second]
    looks_alike = unicodedata.normalize("NFKC", pair[0]) == unicodedata.normalize("NFKC", pair[1])
    one, other = map(ascii if looks_alike else repr, pair)
    return f"{what} {second}, {other}, reads the same as {what} {first}, {one}"


def template_texts(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Templates one by one, checked: those of a named set, or those given; None is none.

    Raises:
        LabelError: there is none, one has no `{}` for the label, or a set's name is not alone.
    """
    if given is None:
        return ()
    templates = listed("templates", given, LabelError, (str,))
    if len(templates) == 1 and isinstance(templates[0], str) and templates[0] in TEMPLATE_SETS:
        return read_lines(TEMPLATE_SETS[templates[0]])
    for template in templates:
        if not isinstance(template, str):
            raise LabelError(
                f"template {template!r} is a {type(template).__name__}, expected a string with {{}} in it"
            )
        if template in TEMPLATE_SETS:
            raise LabelError(f"the set of templates {template!r} goes alone, without other templates")
        if "{}" not in template:
            raise LabelError(
                f"template {template!r} has no {{}} where the label goes, "
                f"and is not the name of a set ({', '.join(TEMPLATE_SETS)})"
            )
    return tuple(templates)
