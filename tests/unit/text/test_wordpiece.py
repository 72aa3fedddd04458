from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_common.errors import LabelError
from clip_common.text import wordpiece
from clip_common.text.tokenizer import tokenize
from clip_common.text.wordpiece import chinese_tokenizer
from tests.parity import chinese_reference
from tests.parity.chinese_strings import chinese_strings
from tests.parity.make_chinese_token_golden import GOLDEN, checksum

UNKNOWN, START, END = 100, 101, 102
needs_reference = pytest.mark.skipif(
    not chinese_reference.available("six"),
    reason="compares with cn-clip's tokenizer: pip install six; pip install --no-deps cn-clip",
)


# --- ids ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ids_are_cn_clips_on_generated_strings():
    golden = np.load(GOLDEN)
    texts = chinese_strings()
    assert len(texts) == len(golden["checksums"]) >= 20_000
    assert len(set(texts)) > 20_000  # hardly any of them twice
    encoded = [chinese_tokenizer().encode(text) for text in texts]
    assert [len(ids) for ids in encoded] == golden["lengths"].tolist()
    found = [checksum(ids) for ids in encoded]
    expected = golden["checksums"].tolist()
    assert [text for text, a, b in zip(texts, found, expected, strict=True) if a != b][:5] == []


@pytest.mark.parametrize(
    ("text", "ids"),
    [  # as BERT's Chinese vocabulary numbers them
        ("", []),
        ("皮卡丘", [4649, 1305, 687]),
        ("  皮 卡\n丘\t", [4649, 1305, 687]),
        ("Café", [8377]),
        ("[CLS]", [138, 12847, 8118, 140]),  # special tokens cannot be written into a text
        ("\u0301", []),
        ("𠮷", [UNKNOWN]),
    ],
)
def test_ids_of_known_texts(text, ids):
    assert chinese_tokenizer().encode(text) == ids


def test_a_word_of_more_than_200_characters_is_unknown():
    encode = chinese_tokenizer().encode
    assert UNKNOWN not in encode("a" * 200)
    assert encode("a" * 201) == [UNKNOWN]
    assert encode("e\u0301" * 200) == encode("e" * 200)  # counted without their accents
    assert encode("狗" * 201) == encode("狗") * 201  # every character is a word


@needs_reference
@pytest.mark.parametrize("seed", range(1, 4))
def test_live_ids_are_cn_clips_on_fresh_strings(seed):
    texts = chinese_strings(4000, seed)
    theirs = chinese_reference.reference_tokenizer()
    assert [text for text in texts if chinese_tokenizer().encode(text) != theirs.encode(text)][:5] == []


@needs_reference
def test_live_golden_checksums_are_what_cn_clips_tokenizer_gives_today():
    theirs = chinese_reference.reference_tokenizer()
    found = [checksum(theirs.encode(text)) for text in chinese_strings()]
    assert np.array_equal(np.load(GOLDEN)["checksums"], found)


@needs_reference
def test_live_ids_are_cn_clips_on_any_text():
    theirs = chinese_reference.reference_tokenizer()

    @settings(max_examples=1500, deadline=None)
    @given(st.text())
    def same(text):
        assert chinese_tokenizer().encode(text) == theirs.encode(text)

    same()


def test_encoding_stops_where_there_are_too_many() -> None:
    tokenizer = chinese_tokenizer()
    for text in ("狗" * 10, "dog " * 10, "unaffable"):
        ids = tokenizer.encode(text)
        assert tokenizer.encode_within(text, len(ids)) == ids
        assert tokenizer.encode_within(text, len(ids) - 1) is None
    assert tokenizer.encode_within("狗" * 100_000, 50) is None


def test_the_vocabulary_is_the_published_one():
    content = wordpiece._VOCABULARY.read_bytes()
    assert hashlib.sha256(content).hexdigest() == (
        "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c"
    )
    tokenizer = chinese_tokenizer()
    assert sorted(tokenizer._ids.values()) == list(range(21128))
    assert tokenizer._ids["[PAD]"] == 0
    assert (tokenizer._ids["[UNK]"], tokenizer.start, tokenizer.end) == (UNKNOWN, START, END)


# --- tokenize ----------------------------------------------------------------------------------------


def test_tokenize_pads_with_zeros_after_the_end():
    ids = tokenize(["皮卡丘", ""], 52, tokenizer=chinese_tokenizer())
    assert ids.dtype == np.int64
    assert ids.shape == (2, 52)
    assert ids[0, :6].tolist() == [START, 4649, 1305, 687, END, 0]
    assert ids[1, :3].tolist() == [START, END, 0]
    assert not ids[:, 5:].any()


def test_a_text_that_is_too_long_is_named_or_cut():
    text = "狗" * 51
    with pytest.raises(LabelError, match=r"狗狗.* 53 tokens.* 52"):
        tokenize([text], 52, tokenizer=chinese_tokenizer())
    ids = tokenize([text], 52, truncate=True, tokenizer=chinese_tokenizer())
    dog = chinese_tokenizer().encode("狗")[0]
    assert ids[0].tolist() == [START, *[dog] * 50, END]
