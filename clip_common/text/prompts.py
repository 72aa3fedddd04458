"""Label sets and prompt templates: the built-in ones, and checks of the user's."""

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
# From OpenAI's prompt engineering notebook: the 80 of the paper, and the subset of 7 that did best; and some
# in Chinese, written for this project.
TEMPLATE_SETS = {
    "openai": "templates_openai.txt",
    "openai7": "templates_openai7.txt",
    "zh": "templates_zh.txt",
}
_COMMAS = re.compile("[,，、]")
_BARE = ("{}",)
_LONG = 512  # tokens, more than any model reads
_JOINERS = "\u200c\u200d"  # have a meaning in emoji sequences and in Persian


@dataclass(frozen=True)
class Prompts:
    """The texts that images are compared with: each label in each template.

    No templates means classes that are stored in the weights file, see `weights/class_head.py`.
    """

    labels: tuple[str, ...]
    templates: tuple[str, ...]

    def texts(self) -> list[str]:
        """Each label in each template, ordered by label; labels x templates texts."""
        return [template.replace("{}", label) for label in self.labels for template in self.templates]


def prompts_for(
    record: Pretrained, labels: Iterable[str] | None, templates: str | Iterable[str] | None
) -> Prompts:
    """Resolve the labels and templates of a call, with defaults from the module's record.

    Args:
        record: the module's record.
        labels: the labels; None for the module's default set.
        templates: one template, several, or the name of a set. None uses the module's templates for its
            default labels, and no template (the label itself) for other labels.

    Raises:
        LabelError: no labels, or blank, duplicate or non-string ones; a template without `{}`.
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
    """Split labels at commas, Latin or Chinese."""
    return [label.strip() for label in _COMMAS.split(text)]


def check_labels(given: Iterable[str]) -> tuple[str, ...]:
    """Check labels and return them unchanged, as a tuple.

    Raises:
        LabelError: there are none, or one is blank, a duplicate, or not a string.
    """
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
    """Whether a text consists of white space and invisible characters only."""
    return not _seen(text).strip()


def _seen(text: str) -> str:
    """Remove invisible characters (control and format characters, except joiners)."""
    if text.isascii() and text.isprintable():
        return text
    hidden = (mark for mark in set(text) if unicodedata.category(mark) in ("Cc", "Cf") and not mark.isspace())
    return text.translate(dict.fromkeys(map(ord, set(hidden) - set(_JOINERS))))


def require_distinct(labels: tuple[str, ...], text: TextConfig | BertConfig) -> None:
    """Check that no two labels have the same tokens, which would split one score between them.

    Args:
        labels: as returned by `check_labels`.
        text: config of the text tower, whose tokenizer may, for example, ignore case.

    Raises:
        LabelError: two labels have the same tokens; the message names them.
    """
    if same := _same_texts(labels, text):
        raise LabelError(f"{_described('label', labels, *same)}: remove one of them")


@lru_cache(maxsize=64)
def warn_of_same_classes(classes: tuple[str, ...], text: TextConfig | BertConfig) -> None:
    """Warn, once, if two classes of a data set have the same tokens."""
    if same := _same_texts(classes, text):
        logger.warning("%s: their names do not distinguish them", _described("class", classes, *same))


@lru_cache(maxsize=64)
def _same_texts(labels: tuple[str, ...], text: TextConfig | BertConfig) -> tuple[int, int] | None:
    """Indices of the first two labels that are spelled differently, but have the same tokens once invisible
    characters are removed; or None."""
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
    """Check templates, and expand the name of a set; None gives no templates.

    Raises:
        LabelError: an empty list, a template without `{}`, or the name of a set among templates.
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
            raise LabelError(f"the set of templates {template!r} must be used alone, without other templates")
        if "{}" not in template:
            raise LabelError(
                f"template {template!r} has no {{}} where the label goes, "
                f"and is not the name of a set ({', '.join(TEMPLATE_SETS)})"
            )
    return tuple(templates)
