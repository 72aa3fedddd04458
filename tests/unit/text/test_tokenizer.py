from __future__ import annotations

import numpy as np
import pytest

from clip_common.errors import LabelError
from clip_common.text.byte_pair import byte_pair_tokenizer
from clip_common.text.tokenizer import lengths, tokenize

START, END = 49406, 49407


def test_tokenize_pads_with_zeros_after_the_end():
    ids = tokenize(["a diagram", "", "a dog"])
    assert ids.dtype == np.int64
    assert ids.shape == (3, 77)
    assert ids[0, :5].tolist() == [START, 320, 22697, END, 0]
    assert ids[1, :3].tolist() == [START, END, 0]
    assert not ids[:, 4:].any()
    assert lengths(ids).tolist() == [4, 2, 4]


def test_tokenize_takes_one_string_for_a_list_of_one():
    assert np.array_equal(tokenize("a dog"), tokenize(["a dog"]))
    assert np.array_equal(tokenize(("a dog", "a cat")), tokenize(["a dog", "a cat"]))
    assert tokenize([]).shape == (0, 77)


def test_the_longest_text_that_fits_is_kept_whole():
    ids = tokenize(" ".join(["dog"] * 75))
    assert ids[0, 0] == START
    assert (ids[0, 1:76] == 1929).all()
    assert ids[0, 76] == END


def test_truncation_keeps_the_end_token():
    text = " ".join(["dog"] * 75) + " cat"
    ids = tokenize(["a cat", text], truncate=True)
    assert ids[1].tolist() == [START, *[1929] * 75, END]
    assert ids[0].tolist() == tokenize("a cat")[0].tolist()
    assert lengths(ids)[1] == 77


def test_a_text_that_is_too_long_is_named():
    text = "the quick brown fox " * 20
    with pytest.raises(LabelError) as caught:
        tokenize(["a dog", text])
    message = str(caught.value)
    assert text[:40] in message
    assert "82 tokens" in message
    assert "77" in message


@pytest.mark.parametrize("length", [2, 3, 16, 100])
def test_other_context_lengths(length):
    ids = tokenize(["a very big dog", ""], context_length=length, truncate=True)
    assert ids.shape == (2, length)
    tokens = byte_pair_tokenizer().encode("a very big dog")
    whole = [START, *tokens[: length - 2], END]
    assert ids[0].tolist() == whole + [0] * (length - len(whole))
    if length < 6:
        with pytest.raises(LabelError, match=f"limit is {length}"):
            tokenize("a very big dog", context_length=length)


@pytest.mark.parametrize("stray", [None, 3, b"a dog", ["a dog"], np.float32(1)])
def test_what_is_not_a_text_is_named_by_its_place(stray):
    with pytest.raises(LabelError, match=rf"text 1 .*{type(stray).__name__}"):
        tokenize(["a dog", stray])


@pytest.mark.parametrize("text", ["x" * 3_000_000, "一" * 1_000_000, "a dog " * 300_000, "1" * 1_000_000])
def test_what_follows_the_context_is_not_encoded(text, monkeypatch):
    tokenizer = byte_pair_tokenizer()
    merge, encoded = tokenizer._encode_word, []

    def noted(word):
        encoded.append(word)
        return merge(word)

    monkeypatch.setattr(tokenizer, "_encode_word", noted)
    with pytest.raises(LabelError, match="more than 1024 tokens"):
        tokenize([text])
    assert sum(map(len, encoded)) < 50_000
