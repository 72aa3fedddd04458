from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_common.errors import LabelError
from clip_common.text.tokenizer import _merged, default_tokenizer, lengths, tokenize
from tests.parity import reference
from tests.parity.make_token_golden import GOLDEN
from tests.parity.strings import strings

START, END = 49406, 49407
needs_reference = pytest.mark.skipif(
    not reference.available(), reason="compares with OpenAI's tokenizer: pip install --no-deps openai-clip"
)


def differences(texts: list[str], expected: list[list[int]]) -> list[tuple]:
    """The first few texts whose ids differ, with both: a readable failure among thousands."""
    ours = [default_tokenizer().encode(text) for text in texts]
    return [case for case in zip(texts, ours, expected, strict=True) if case[1] != case[2]][:5]


# --- ids ---------------------------------------------------------------------------------------------


def test_ids_are_openais_on_generated_strings():
    golden = np.load(GOLDEN)
    expected = np.split(golden["ids"], np.cumsum(golden["lengths"].astype(int))[:-1])
    texts = strings()
    assert len(texts) == len(expected) >= 10_000
    assert len(set(texts)) > 10_000  # hardly any of them twice
    assert differences(texts, [ids.tolist() for ids in expected]) == []


@pytest.mark.parametrize(
    ("text", "ids"),
    [  # as published examples of CLIP show them
        ("a diagram", [320, 22697]),
        ("a dog", [320, 1929]),
        ("a cat", [320, 2368]),
        ("", []),
        ("A  DOG\n", [320, 1929]),
        ("<|startoftext|><|ENDOFTEXT|>", [START, END]),
        ("&amp;amp;", [261]),  # two rounds of HTML leave "&"
    ],
)
def test_ids_of_known_texts(text, ids):
    assert default_tokenizer().encode(text) == ids


@needs_reference
@pytest.mark.parametrize("seed", range(1, 4))
def test_live_ids_are_openais_on_fresh_strings(seed):
    texts = strings(4000, seed)
    tokenizer = reference.reference_tokenizer()
    assert differences(texts, [tokenizer.encode(text) for text in texts]) == []


@needs_reference
def test_live_ids_are_openais_on_any_text():
    tokenizer = reference.reference_tokenizer()

    @settings(max_examples=1500, deadline=None)
    @given(st.text())
    def same(text):
        assert default_tokenizer().encode(text) == tokenizer.encode(text)

    same()


@needs_reference
def test_live_golden_ids_are_what_openais_tokenizer_gives_today():
    golden = np.load(GOLDEN)
    tokenizer = reference.reference_tokenizer()
    ids = [number for text in strings() for number in tokenizer.encode(text)]
    assert np.array_equal(golden["ids"], ids)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_ids_of_the_vocabulary(text):
    ids = default_tokenizer().encode(text)
    assert all(0 <= number <= END for number in ids)
    assert ids == default_tokenizer().encode(text)  # the second time, from the cache of words


def test_the_vocabulary_is_whole():
    tokenizer = default_tokenizer()
    assert sorted(tokenizer._ids.values()) == list(range(49408))
    assert (tokenizer.start, tokenizer.end) == (START, END)


# --- tokenize ----------------------------------------------------------------------------------------


def test_tokenize_pads_with_zeros_after_the_end():
    ids = tokenize(["a diagram", "", "a dog"])
    assert ids.dtype == np.int64
    assert ids.shape == (3, 77)
    assert ids[0, :5].tolist() == [START, 320, 22697, END, 0]
    assert ids[1, :3].tolist() == [START, END, 0]
    assert not ids[:, 4:].any()
    assert list(lengths(ids)) == [4, 2, 4]


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
    assert list(lengths(ids))[1] == 77


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
    tokens = default_tokenizer().encode("a very big dog")
    whole = [START, *tokens[: length - 2], END]
    assert ids[0].tolist() == whole + [0] * (length - len(whole))
    if length < 6:
        with pytest.raises(LabelError, match=f"limit is {length}"):
            tokenize("a very big dog", context_length=length)


@pytest.mark.parametrize("stray", [None, 3, b"a dog", ["a dog"], np.float32(1)])
def test_what_is_not_a_text_is_named_by_its_place(stray):
    with pytest.raises(LabelError, match=rf"text 1 .*{type(stray).__name__}"):
        tokenize(["a dog", stray])


# --- effort ------------------------------------------------------------------------------------------


class CountedRanks(dict):
    """Ranks of merges that count how often they are asked."""

    asked = 0

    def __contains__(self, pair):
        self.asked += 1
        return super().__contains__(pair)


def test_the_effort_grows_with_a_word_and_not_with_its_square():
    ranks = CountedRanks(default_tokenizer()._ranks)
    for word in ("abcde" * 2000, "a" * 10_000, "一" * 3000, "the" * 3000):
        parts = [default_tokenizer()._byte_symbols[byte] for byte in word.encode()]
        ranks.asked = 0
        assert "".join(_merged(parts, ranks)) == "".join(parts)
        assert ranks.asked < 5 * len(parts)


@pytest.mark.parametrize("text", ["x" * 3_000_000, "一" * 1_000_000, "a dog " * 300_000, "1" * 1_000_000])
def test_what_follows_the_context_is_not_encoded(text, monkeypatch):
    tokenizer = default_tokenizer()
    merge, encoded = tokenizer._encode_word, []

    def noted(word):
        encoded.append(word)
        return merge(word)

    monkeypatch.setattr(tokenizer, "_encode_word", noted)
    with pytest.raises(LabelError, match="more than 1024 tokens"):
        tokenize([text])
    assert sum(map(len, encoded)) < 50_000


def test_long_words_are_not_kept_in_memory():
    tokenizer = default_tokenizer()
    before = tokenizer._encode_known.cache_info().currsize
    for i in range(20):
        tokenizer.encode("z" * (1000 + i))
    assert tokenizer._encode_known.cache_info().currsize == before
