from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_common.text.byte_pair import _merged, byte_pair_tokenizer
from tests.parity import reference
from tests.parity.make_token_golden import GOLDEN
from tests.parity.strings import strings

START, END = 49406, 49407
needs_reference = pytest.mark.skipif(
    not reference.available(), reason="compares with OpenAI's tokenizer: pip install --no-deps openai-clip"
)


def differences(texts: list[str], expected: list[list[int]]) -> list[tuple]:
    """The first few texts whose ids differ, with both: a readable failure among thousands."""
    ours = [byte_pair_tokenizer().encode(text) for text in texts]
    return [case for case in zip(texts, ours, expected, strict=True) if case[1] != case[2]][:5]


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
    assert byte_pair_tokenizer().encode(text) == ids


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
        assert byte_pair_tokenizer().encode(text) == tokenizer.encode(text)

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
    ids = byte_pair_tokenizer().encode(text)
    assert all(0 <= number <= END for number in ids)
    assert ids == byte_pair_tokenizer().encode(text)  # the second time, from the cache of words


def test_the_vocabulary_is_whole():
    tokenizer = byte_pair_tokenizer()
    assert sorted(tokenizer._ids.values()) == list(range(49408))
    assert (tokenizer.start, tokenizer.end) == (START, END)


class CountedRanks(dict):
    """Ranks of merges that count how often they are asked."""

    asked = 0

    def __contains__(self, pair):
        self.asked += 1
        return super().__contains__(pair)


def test_the_effort_grows_with_a_word_and_not_with_its_square():
    ranks = CountedRanks(byte_pair_tokenizer()._ranks)
    for word in ("abcde" * 2000, "a" * 10_000, "一" * 3000, "the" * 3000):
        parts = [byte_pair_tokenizer()._byte_symbols[byte] for byte in word.encode()]
        ranks.asked = 0
        assert "".join(_merged(parts, ranks)) == "".join(parts)
        assert ranks.asked < 5 * len(parts)


def test_long_words_are_not_kept_in_memory():
    tokenizer = byte_pair_tokenizer()
    before = tokenizer._encode_known.cache_info().currsize
    for i in range(20):
        tokenizer.encode("z" * (1000 + i))
    assert tokenizer._encode_known.cache_info().currsize == before
