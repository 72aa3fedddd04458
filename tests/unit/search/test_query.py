"""What is searched for, to one embedding."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clip_common.config import pretrained
from clip_common.errors import RequestError
from clip_common.predictor import Predictor
from clip_common.search.hits import Hit
from clip_common.search.query import Query, as_json, as_table, combined, terms_of
from clip_common.zero_shot.scoring import l2_normalize
from tests.support.paths import EXAMPLES


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a dog", [("a dog", 1)]),
        ("dog - snow", [("dog", 1), ("snow", -1)]),
        ("a dog + a beach^0.5 - wet snow^2", [("a dog", 1), ("a beach", 0.5), ("wet snow", -2)]),
        ("- snow", [("snow", -1)]),
        ("+ dog\n-\tsnow ", [("dog", 1), ("snow", -1)]),
        ("black-and-white -5 C++ a+b", [("black-and-white -5 C++ a+b", 1)]),
        ("2^10", [("2", 10)]),
        ("雪 - 狗^1.5", [("雪", 1), ("狗", -1.5)]),
        ("雪 － 狗 ＋ 山 − 海", [("雪", 1), ("狗", -1), ("山", 1), ("海", -1)]),
        ("dog^.5 + cat^2.", [("dog", 0.5), ("cat", 2)]),
        ('"x^y z^" - snow', [("x^y z^", 1), ("snow", -1)]),
        ('"dog - snow"^2 + "-beach"', [("dog - snow", 2), ("-beach", 1)]),
        ('a sign "no - entry" - snow', [('a sign "no - entry"', 1), ("snow", -1)]),
        ('he says "stop!", "go^"', [('he says "stop!", "go^"', 1)]),
        ("“dog - snow”", [("dog - snow", 1)]),
        ('a 5" pipe - a 6" pipe', [('a 5" pipe', 1), ('a 6" pipe', -1)]),
        ("at -5 degrees + 1 dog -> out", [("at -5 degrees", 1), ("1 dog -> out", 1)]),
    ],
)
def test_words_become_terms_with_weights(words: str, expected: list[tuple[str, float]]) -> None:
    assert terms_of(words) == expected


@pytest.mark.parametrize("words", ["", "  ", "-", "dog -", "dog - - snow", "dog + ^2", "^2"])
def test_words_that_are_missing_are_said(words: str) -> None:
    with pytest.raises(RequestError, match="words are missing; `a dog - snow` means a dog without snow"):
        terms_of(words)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("a dog^abc", "'a dog^abc': after ^ comes a number, at the end of a term, as in `a dog^0.5 - snow`"),
        ("dog^-1 - snow", "'dog^-1': after ^ comes a number"),
        ("dog^0,5", "after ^ comes a number"),
        ("dog^", "after ^ comes a number"),
        ("dog^2 in snow", "after ^ comes a number"),
        ("dog^2^3", "after ^ comes a number"),
        (f"dog^{'9' * 400}", "after ^ comes a number"),
        ("dog -snow", "in '-snow' the sign needs spaces around it to add or take away"),
        ("+dog", "in '+dog' the sign needs spaces around it"),
        ("雪地里的狗-雪", "in '雪地里的狗-雪' the sign needs spaces around it to add or take away"),
        ("狗＋沙滩", "in '狗＋沙滩' the sign needs spaces around it"),
        ('"x^y" z^q', "z^q': after ^ comes a number"),
        ('"dog - snow', 'a quotation begins with " and does not end'),
    ],
)
def test_what_is_nearly_an_expression_is_not_read_as_words(words: str, fault: str) -> None:
    with pytest.raises(RequestError) as refused:
        terms_of(words)
    assert fault in str(refused.value)
    assert "text in double quotes is taken literally: '\"C^2 -x\"'" in str(refused.value)


def test_terms_and_images_are_weighed() -> None:
    texts, images = (l2_normalize(np.random.default_rng(i).normal(size=(3, 8))) for i in range(2))
    weights = [1, 0.5, -2]
    words = l2_normalize(texts[0] + 0.5 * texts[1] - 2 * texts[2])
    mean = l2_normalize(images.sum(axis=0))
    np.testing.assert_allclose(combined(texts, weights, None), words)
    np.testing.assert_allclose(combined(None, [], images), mean)
    for share in (0.0, 0.3, 1.0):
        both = combined(texts, weights, images, share)
        np.testing.assert_allclose(both, l2_normalize(share * words + (1 - share) * mean))


def test_words_and_images_of_all_kinds() -> None:
    predictor = Predictor(pretrained("clip_mini"))
    dog, cat = (str(EXAMPLES / f"{name}.png") for name in ("dog", "cat"))
    made = predictor.embed(paths=[dog, cat], texts=["a dog", "a tree"])
    texts, images = made["texts"], made["images"]
    for query, like, expected in (
        (Query("a dog - a tree"), [], texts[0] - texts[1]),
        (Query("a dog", [cat], 0.3), [], 0.3 * texts[0] + 0.7 * images[1]),
        (Query(images=[dog]), [images[1]], images[0] + images[1]),
        (Query(), [images[1]], images[1]),
    ):
        np.testing.assert_allclose(query.embedding(predictor, like), l2_normalize(expected), atol=1e-6)


def test_a_query_by_an_image_of_the_index_needs_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(pretrained("clip_mini"))
    monkeypatch.setattr(predictor, "embed", None)
    vector = np.eye(4, dtype=np.float32)[0]
    np.testing.assert_array_equal(Query().embedding(predictor, [vector]), vector)


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e21, 1e300])
def test_only_the_ratio_of_weights_counts(scale: float) -> None:
    texts = l2_normalize(np.random.default_rng(3).normal(size=(2, 8)).astype(np.float32))
    expected = combined(texts, [1, -0.5], None)
    np.testing.assert_allclose(combined(texts, [scale, -0.5 * scale], None), expected, atol=1e-6)
    np.testing.assert_allclose(combined(texts[:1], [scale], None), texts[0], atol=1e-6)


def test_words_that_the_model_does_not_know_are_said(caplog: pytest.LogCaptureFixture) -> None:
    predictor = Predictor(pretrained("clip_mini"))  # it knows no Chinese
    for words in ("a dog", "a dog beside a 狗", "dog - snow"):
        Query(words).embedding(predictor)
    assert not caplog.records
    Query("собака").embedding(predictor)
    Query("a dog - 狗^0.5 - 雪", [str(EXAMPLES / "cat.png")]).embedding(predictor)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("clip_mini knows no word of 'собака': what it finds by that is arbitrary")
    assert second.startswith("clip_mini knows no word of '狗', '雪': ")


def test_nothing_is_said() -> None:
    predictor = Predictor(pretrained("clip_mini"))
    with pytest.raises(RequestError, match="nothing to search for: give words, --image or --like"):
        Query().embedding(predictor)
    with pytest.raises(RequestError, match="--text_weight is 2, expected 0 to 1"):
        Query("a dog", text_weight=2).embedding(predictor)
    with pytest.raises(RequestError, match="cancel each other out"):
        Query("a dog - a dog").embedding(predictor)


def test_what_was_folded_is_shown() -> None:
    hits = [Hit("a.png", 0.9, 30, 20, "one", "/photos", ("b.png", "c.png")), Hit("d.png", 0.8, 3, 2, "")]
    assert as_table(hits).splitlines() == [
        " 0.9000     30 x 20     a.png  (+2 alike)  one",
        " 0.8000      3 x 2      d.png",
    ]
    first, second = json.loads(as_json(hits))["results"]
    assert first["duplicates"] == ["b.png", "c.png"] and second["duplicates"] == []
    assert as_table([]) == "nothing was found"
