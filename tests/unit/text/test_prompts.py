"""Labels, classes and templates: which of them read the same to a model, and which are nothing."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from clip_common.config import PRETRAINED, pretrained
from clip_common.errors import ClipError, LabelError, RequestError
from clip_common.inputs import check_texts
from clip_common.predictor import Predictor
from clip_common.text.prompts import (
    LABEL_SETS,
    check_labels,
    is_blank,
    read_lines,
    require_distinct,
    warn_of_same_classes,
)
from tests.support.paths import EXAMPLES

SAME = [
    ("a dog", "A DOG"),
    ("caf\u00e9", "cafe\u0301"),
    ("a dog", "a do\u200bg"),
    ("a dog", "a dog\u202e"),
    ("a  dog", "a dog"),
    ("a\u00a0dog", "a dog"),
    ("cats &amp; dogs", "cats & dogs"),
    ("\ufeffa dog", "a dog"),
    ("a dog", "a\tdog"),
]
DIFFERENT = [
    ("a dog", "a dog."),
    ("resume", "r\u00e9sum\u00e9"),
    ("\U0001f600", "\U0001f916"),
    ("\U0001f468\u200d\U0001f469", "\U0001f468\U0001f469"),
    ("a", "b"),
    ("word " * 600 + "a", "word " * 600 + "b"),
]
MINI = pretrained("clip_mini").config.text
BLANK = ["", " ", "\n\t", "\u200b", "\u00ad\u2060", "\ufeff", "\x07", "\u3000", "\u00a0"]


@pytest.mark.parametrize("pair", SAME, ids=ascii)
def test_labels_that_read_the_same_are_refused(pair: tuple[str, str]) -> None:
    labels = check_labels(["a cat", *pair])
    with pytest.raises(LabelError, match=r"label 2, .* reads the same as label 1, .*: remove one") as raised:
        require_distinct(labels, MINI)
    assert str(raised.value).isprintable()
    one, other = str(raised.value).partition(" reads the same as ")[::2]
    assert one.split(", ", 1)[1] != other.split(", ", 1)[1].removesuffix(": remove one of them")


@pytest.mark.parametrize("pair", DIFFERENT, ids=lambda pair: ascii(pair[1][-12:]))
def test_labels_that_do_not_are_not(pair: tuple[str, str]) -> None:
    require_distinct(check_labels(pair), MINI)


def test_to_a_model_without_accents_they_read_the_same() -> None:
    chinese = pretrained("clip_cn_vit_b16").config.text
    with pytest.raises(LabelError, match="reads the same"):
        require_distinct(("resume", "r\u00e9sum\u00e9"), chinese)


def test_the_built_in_sets_have_none(caplog: pytest.LogCaptureFixture) -> None:
    """But for those that are spelled alike: ImageNet's two missiles."""
    for file in LABEL_SETS.values():
        for record in PRETRAINED.values():
            warn_of_same_classes(read_lines(file), record.config.text)
    assert caplog.records == []


def test_labels_that_read_the_same_are_refused_by_every_call() -> None:
    predictor = Predictor("clip_mini")
    dog = EXAMPLES / "dog.png"
    with pytest.raises(LabelError, match="label 1, 'A DOG', reads the same as label 0, 'a dog'"):
        predictor.classify(paths=[dog], labels=["a dog", "A DOG"])
    with pytest.raises(LabelError, match="reads the same"):  # asked again, when all is remembered
        predictor.prompts(["a dog", "A DOG"], "a photo of {}")
    assert len(predictor.classify(paths=[dog])[0]) == 5
    assert len(predictor.classify(paths=[dog], labels=["a dog", "a dog."])[0]) == 2


def test_classes_of_a_data_set_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    predictor = Predictor("clip_mini")
    with caplog.at_level(logging.WARNING):
        prompts = predictor.labels.class_prompts(["Apple pie", "apple pie", "tart"])
        predictor.labels.class_prompts(["Apple pie", "apple pie", "tart"])
    assert prompts.labels == ("Apple pie", "apple pie", "tart")
    (record,) = caplog.records  # once
    assert "class 1, 'apple pie', reads the same as class 0, 'Apple pie'" in record.getMessage()


@pytest.mark.parametrize("text", BLANK, ids=ascii)
def test_blank_texts_are_refused_like_blank_labels(text: str) -> None:
    assert is_blank(text)
    with pytest.raises(LabelError, match="label 1 is blank: remove it"):
        check_labels(["a", text])
    with pytest.raises(RequestError, match=r"texts\[1\] is blank: remove it"):
        check_texts(["a", text])
    with pytest.raises(RequestError, match=r"texts\[0\] is blank"):
        Predictor("clip_mini").embed(texts=text)


@pytest.mark.parametrize("text", ["a", ".", "\u200da", "狗", "\U0001f600", "\ue000"], ids=ascii)
def test_a_text_with_something_in_it_is_none(text: str) -> None:
    assert not is_blank(text)


def test_one_string_in_an_array_is_no_list_of_letters() -> None:
    with pytest.raises(ClipError, match="labels is a str, expected a list"):
        check_labels(np.array("abc"))
