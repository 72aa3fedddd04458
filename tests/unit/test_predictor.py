"""Classify and embed: answers, arguments, what is kept between calls. On the small trained model."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
from PIL import Image

from clip_common.config import PRETRAINED, pretrained
from clip_common.errors import ClipError, ImageError, LabelError, RequestError, WeightsError
from clip_common.predictor import Predictor
from clip_common.preprocessing.image import Preprocess
from clip_common.system.cache import cache_dir
from clip_common.text.prompts import prompts_for, read_lines
from clip_common.text.tokenizer import tokenize
from clip_common.weights.locate import find
from clip_common.weights.tensor_names import CLASS_VECTORS
from clip_common.weights.weights_file import read_openai, write_safetensors
from clip_common.zero_shot import label_embeddings
from clip_common.zero_shot.thresholds import Thresholds
from tests.parity import seeded
from tests.support.paths import EXAMPLES, ROOT

DOG, CAT = EXAMPLES / "dog.png", EXAMPLES / "cat.png"


@pytest.fixture(scope="module")
def mini() -> Predictor:
    return Predictor(pretrained("clip_mini"))


@pytest.fixture
def fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of the test's own, but for what is compiled, which takes seconds and 160 MB."""
    engines, own = cache_dir() / "engines", tmp_path / "cache"
    engines.mkdir(parents=True, exist_ok=True)
    own.mkdir()
    (own / "engines").symlink_to(engines)
    monkeypatch.setenv("CLIP_HUB_CACHE", str(own))
    return own


def pictures(count: int) -> list[Image.Image]:
    random = np.random.RandomState(3)
    sizes = random.randint(20, 200, (count, 2))
    return [Image.fromarray(random.randint(0, 256, (h, w, 3)).astype("uint8")) for h, w in sizes]


# --- meaning -----------------------------------------------------------------------------------------


def test_a_diagram_is_a_diagram(mini: Predictor) -> None:
    (answer,) = mini.classify(
        paths=[ROOT / "examples" / "diagram.png"], labels=["a diagram", "a dog", "a cat"]
    )
    assert answer[0]["label"] == "a diagram"
    assert answer[0]["score"] > 0.5


def test_text_finds_its_picture(mini: Predictor) -> None:
    names = ["diagram", "cat", "bicycle"]
    vectors = mini.embed(
        paths=[ROOT / "examples" / f"{name}.png" for name in names],
        texts=[f"a picture of a {name}" for name in names],
    )
    assert (vectors["texts"] @ vectors["images"].T).argmax(axis=1).tolist() == [0, 1, 2]


# --- classify ----------------------------------------------------------------------------------------


def test_scores_are_a_distribution_over_all_labels(mini: Predictor) -> None:
    (answer,) = mini.classify(images=pictures(1), labels=["a", "b", "c"], top_k=10)
    assert len(answer) == 3
    assert sum(item["score"] for item in answer) == pytest.approx(1)
    assert all(type(item["score"]) is float for item in answer)
    (shorter,) = mini.classify(images=pictures(1), labels=["a", "b", "c"], top_k=1)
    assert shorter == answer[:1]


def test_default_labels_are_the_modules_own(mini: Predictor) -> None:
    (answer,) = mini.classify(images=pictures(1), top_k=10_000)
    assert {item["label"] for item in answer} == set(read_lines("everyday_names.txt"))


def test_templates_are_averaged_as_in_the_paper(mini: Predictor) -> None:
    labels, templates = ["cat", "dog"], ["a photo of a {}.", "a drawing of the {}"]
    image = pictures(1)
    texts = [template.format(label) for label in labels for template in templates]
    vectors = mini.embed(images=image, texts=texts)
    classes = vectors["texts"].reshape(2, 2, -1).mean(axis=1)
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    logits = mini.logit_scale * vectors["images"][0] @ classes.T
    expected = np.exp(logits) / np.exp(logits).sum()
    (answer,) = mini.classify(images=image, labels=labels, templates=templates)
    found = {item["label"]: item["score"] for item in answer}
    assert [found["cat"], found["dog"]] == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_label_may_hold_braces(mini: Predictor) -> None:
    (answer,) = mini.classify(images=pictures(1), labels=["{0.__class__}", "{}"], templates="a {}")
    assert {item["label"] for item in answer} == {"{0.__class__}", "{}"}


@pytest.mark.parametrize(("name", "count"), [("openai", 80), ("openai7", 7)])
def test_published_template_sets(name: str, count: int) -> None:
    prompts = prompts_for(pretrained("clip_rn50"), ["dog"], name)
    assert len(prompts.templates) == len(set(prompts.templates)) == count
    assert len(prompts.texts()) == count


def test_imagenet_is_the_default_of_the_backbones() -> None:
    prompts = prompts_for(pretrained("clip_rn50"), None, None)
    assert len(prompts.labels) == 1000
    assert prompts.texts()[0] == "a photo of a tench."
    assert prompts.labels[-1] == "toilet paper"


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_a_batch_equals_its_singles(mini: Predictor, batch_size: int) -> None:
    images = pictures(5)
    singles = np.concatenate([mini.embed(images=[image])["images"] for image in images])
    together = mini.embed(images=images, batch_size=batch_size)["images"]
    assert np.abs(together - singles).max() <= 1e-6


def test_texts_of_any_length_in_any_order(mini: Predictor) -> None:
    texts = ["a cat", "a very " * 20 + "long text", "dog", "a cat", "x"]
    singles = np.concatenate([mini.embed(texts=[text])["texts"] for text in texts])
    together = mini.embed(texts=texts, batch_size=2)["texts"]
    assert np.abs(together - singles).max() <= 1e-6
    assert np.array_equal(together[0], together[3])


def test_normalize_is_optional(mini: Predictor) -> None:
    unit = mini.embed(texts=["a cat"])["texts"]
    raw = mini.embed(texts=["a cat"], normalize=False)["texts"]
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(raw) > 1.5
    assert np.allclose(raw / np.linalg.norm(raw), unit, atol=1e-6)


# --- scores one can act on -----------------------------------------------------------------------------


def test_cosine_scores_are_cosines(mini: Predictor) -> None:
    labels = ["a", "b", "c"]
    vectors = mini.embed(images=pictures(1), texts=labels)
    expected = dict(zip(labels, (vectors["texts"] @ vectors["images"][0]).tolist(), strict=True))
    (answer,) = mini.classify(images=pictures(1), labels=labels, scores="cosine")
    assert {item["label"]: item["score"] for item in answer} == pytest.approx(expected, abs=1e-6)
    (alone,) = mini.classify(images=pictures(1), labels=["b"], scores="cosine")
    assert alone[0]["score"] == pytest.approx(expected["b"], abs=1e-6)


def test_each_image_gets_its_labels_or_none(mini: Predictor) -> None:
    call: dict[str, Any] = {"paths": [DOG, CAT], "labels": ["a dog", "a cat"], "scores": "cosine"}
    dog, cat = ({one["label"]: one["score"] for one in answer} for answer in mini.classify(**call))
    between = {label: (dog[label] + cat[label]) / 2 for label in dog}
    assert dog["a dog"] > between["a dog"] and cat["a cat"] > between["a cat"]
    named = [[item["label"] for item in answer] for answer in mini.classify(**call, thresholds=between)]
    assert named == [["a dog"], ["a cat"]]
    assert mini.classify(**call, thresholds=1.0) == [[], []]
    assert mini.classify(**call, thresholds=-1) == mini.classify(**call)


def fitted(mini: Predictor, **changes: Any) -> Thresholds:
    values = {"a dog": -1.0, "a cat": 1.0, "a car": -1.0}
    return replace(Thresholds("clip_mini", mini.weights_sha256, ("the {}",), "cosine", values), **changes)


def test_fitted_thresholds_bring_labels_templates_and_scores(mini: Predictor, tmp_path: Path) -> None:
    fitted(mini).write(tmp_path / "t.json")
    expected = mini.classify(paths=[DOG], labels=["a dog", "a car"], templates="the {}", scores="cosine")
    for given in (tmp_path / "t.json", str(tmp_path / "t.json"), fitted(mini)):
        found = mini.classify(paths=[DOG], thresholds=given)
        for item, other in zip(found[0], expected[0], strict=True):
            assert item["label"] == other["label"]
            assert item["score"] == pytest.approx(other["score"], abs=1e-6)
    some: dict[str, Any] = {"labels": ["a car", "a cat"], "templates": ["the {}"], "scores": "cosine"}
    (answer,) = mini.classify(paths=[DOG], thresholds=fitted(mini), **some)
    assert [item["label"] for item in answer] == ["a car"]


def test_thresholds_of_classes_that_travel_with_the_weights(mini: Predictor, tmp_path: Path) -> None:
    """As `adapt` writes them: their vectors are of any length, cosines are of their directions."""
    vectors = mini.embed(texts=["a dog", "a cat"])["texts"]
    state = read_openai(find(mini.record).path) | {
        CLASS_VECTORS: vectors * np.array([[3], [0.5]], np.float32)
    }
    write_safetensors(state, tmp_path / "adapted.safetensors", {"classes": ["hound", "tom"]})
    adapted = Predictor("clip_mini", tmp_path / "adapted.safetensors", engine="paddle")  # nothing to compile
    expected = mini.classify(paths=[DOG], labels=["a dog", "a cat"], scores="cosine")[0]
    (answer,) = adapted.classify(paths=[DOG], scores="cosine")
    assert [item["label"] for item in answer] == ["hound", "tom"]
    assert [one["score"] for one in answer] == pytest.approx([one["score"] for one in expected], abs=1e-6)
    values = {"hound": -1.0, "tom": 1.0}
    own = fitted(adapted, templates=(), values=values)
    assert [item["label"] for item in adapted.classify(paths=[DOG], thresholds=own)[0]] == ["hound"]
    with pytest.raises(RequestError, match="thresholds are for the templates"):
        adapted.classify(paths=[DOG], thresholds=own, templates="a {}")
    in_words = fitted(adapted, values=values)  # the same names, through the text tower
    assert [item["label"] for item in adapted.classify(paths=[DOG], thresholds=in_words)[0]] == ["hound"]
    assert adapted.labels.prompts_and_scoring(None, None, None, in_words)[0].templates == ("the {}",)


@pytest.mark.parametrize(
    ("changes", "call", "words"),
    [
        ({"weights_sha256": "0" * 64}, {}, "are for clip_mini with the weights 000000000000, and these are"),
        ({"module": "clip_rn50"}, {}, "thresholds are for clip_rn50, and this is clip_mini"),
        ({}, {"scores": "softmax"}, "thresholds are for cosine scores: leave scores='softmax' out"),
        ({}, {"templates": "a {}"}, r"thresholds are for the templates \['the {}'\]"),
        ({}, {"templates": "openai"}, "thresholds are for the templates"),
        ({"templates": ()}, {}, r"thresholds are for the templates \[\]"),
        ({}, {"labels": ["a dog", "a tree"]}, "thresholds has none for the label 'a tree'"),
        ({"values": {"a dog": 2.0}}, {}, r"thresholds\['a dog'\] is 2.0"),
    ],
)
def test_thresholds_of_something_else_are_refused(
    mini: Predictor, changes: dict[str, Any], call: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        mini.classify(paths=[DOG], thresholds=fitted(mini, **changes), **call)


# --- what is kept ------------------------------------------------------------------------------------


def test_label_vectors_are_computed_once(
    mini: Predictor, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: dict[str, Any] = {"labels": ["a lighthouse", "a windmill"], "images": pictures(1)}
    encoded: list[list[str]] = []
    original = Predictor.text_features

    def counted(self: Predictor, texts: list[str], *rest: Any) -> np.ndarray:
        encoded.append(list(texts))
        return original(self, texts, *rest)

    monkeypatch.setattr(Predictor, "text_features", counted)
    first_process, second_process = Predictor(mini.record), Predictor(mini.record)
    first = first_process.classify(**labels)
    assert encoded == [["a lighthouse", "a windmill"]]
    assert first_process.classify(**labels) == first
    assert second_process.classify(**labels) == first
    assert len(encoded) == 1
    second_process.classify(images=pictures(1), labels=["a lighthouse", "a windmill"], templates="a big {}")
    assert len(encoded) == 2


def test_damaged_label_vectors_are_computed_again(mini: Predictor, fresh_cache: Path) -> None:
    call: dict[str, Any] = {"labels": ["a lighthouse", "a windmill"], "images": pictures(1)}
    expected = Predictor(mini.record).classify(**call)
    (file,) = (fresh_cache / "labels").iterdir()
    for damage in (b"", b"not numpy", file.read_bytes()[:-7]):
        file.write_bytes(damage)
        assert Predictor(mini.record).classify(**call) == expected


def test_the_cache_of_label_embeddings_is_bounded_in_bytes(
    mini: Predictor, fresh_cache: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(label_embeddings, "_BYTES_ON_DISK", 10_000)
    monkeypatch.setattr(label_embeddings, "_BYTES_IN_MEMORY", 6_000)
    predictor = Predictor(mini.record)
    for number in range(5):
        predictor.classify(images=pictures(1), labels=[f"number {number}", "other"])
    files = list((cache_dir() / "labels").iterdir())
    assert len(files) >= 2 and sum(file.stat().st_size for file in files) <= 10_000
    predictor.classify(images=pictures(1), labels=[f"many {number}" for number in range(20)])
    kept = predictor._load().labels.computed._in_memory.values()
    assert sum(vectors.nbytes for vectors in kept) <= 6_000
    files = list((cache_dir() / "labels").iterdir())
    assert sum(file.stat().st_size for file in files) <= 10_000


def test_a_cache_that_cannot_be_written_costs_a_warning(
    mini: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path / "file" / "cache"))
    answer = Predictor(mini.record).classify(images=pictures(1), labels=["a", "b"])
    assert len(answer[0]) == 2
    assert "CLIP_HUB_CACHE" in caplog.text


# --- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, RequestError, "nothing to classify"),
        ({"images": []}, RequestError, "images is empty"),
        ({"paths": []}, RequestError, "paths is empty"),
        ({"paths": "x.png"}, ImageError, "x.png: no such file"),
        ({"paths": 5}, RequestError, "paths is a int, expected a list"),
        ({"paths": [b"x.png"]}, RequestError, r"paths\[0\] is a bytes"),
        ({"paths": [None]}, RequestError, r"paths\[0\] is a NoneType"),
        ({"paths": pd.DataFrame({"path": ["x.png"]})}, RequestError, "paths is a DataFrame"),
        ({"images": 5}, RequestError, "images is a int, expected a list"),
        ({"images": io.BytesIO(b"x")}, RequestError, "images is a BytesIO"),
        ({"images": np.zeros(4, "uint8")}, ImageError, r"shape \[4\]"),
        ({"images": iter(())}, RequestError, "images is empty"),
        ({"images": [None]}, ImageError, r"images\[0\]: a NoneType"),
        ({"paths": ["/no/such.png"]}, ImageError, "/no/such.png: no such file"),
        ({"images": [b"junk"]}, ImageError, r"images\[0\]: not an image"),
        ({"images": [3]}, ImageError, r"images\[0\]: a int is not an image"),
        ({"labels": []}, LabelError, "labels is empty"),
        ({"labels": ["a", " "]}, LabelError, "label 1 is blank"),
        ({"labels": ["a", "b", "a "]}, LabelError, "'a' is given twice, as label 0 and as label 2"),
        ({"labels": ["a", 5]}, LabelError, "label 1 is a int"),
        ({"labels": "a,b"}, LabelError, "expected a list"),
        ({"labels": 5}, LabelError, "labels is a int, expected a list"),
        ({"labels": b"ab"}, LabelError, "labels is a bytes, expected a list"),
        ({"labels": pd.DataFrame({"label": ["a"]})}, LabelError, "labels is a DataFrame"),
        ({"labels": ["a", float("nan")]}, LabelError, "label 1 is a float"),
        ({"templates": 5}, LabelError, "templates is a int"),
        ({"templates": [5]}, LabelError, "template 5 is a int"),
        ({"templates": [["a {}"]]}, LabelError, "is a list, expected a string"),
        ({"templates": lambda label: label}, LabelError, "templates is a function"),
        ({"templates": [lambda label: label]}, LabelError, "is a function, expected a string"),
        ({"templates": "a photo of a {c}"}, LabelError, "has no {}"),
        ({"templates": "openai80"}, LabelError, "not the name of a set"),
        ({"use_gpu": "False"}, RequestError, "use_gpu is 'False'"),
        ({"images": ["x.png"]}, RequestError, r"images\[0\] is a path \('x.png'\): files go into paths"),
        ({"labels": ["a"], "templates": ["a {}", "openai"]}, LabelError, "'openai' must be used alone"),
        ({"labels": ["word " * 100]}, LabelError, "the limit is 77"),
        ({"labels": ["a"], "templates": "no place"}, LabelError, "'no place' has no {}"),
        ({"labels": ["a"], "templates": []}, LabelError, "templates is empty"),
        ({"top_k": 0}, RequestError, "top_k is 0"),
        ({"scores": "Cosine"}, RequestError, "scores is 'Cosine', expected 'softmax' or 'cosine'"),
        ({"thresholds": float("nan")}, RequestError, "thresholds is nan, expected a number from 0 to 1"),
        ({"thresholds": [0.1]}, RequestError, "length 1, for 2 labels"),
        ({"thresholds": "nowhere.json"}, RequestError, "nowhere.json: cannot be read"),
        ({"batch_size": 0}, RequestError, "batch_size is 0"),
        ({"batch_size": 2.5}, RequestError, "batch_size is 2.5"),
        ({"use_gpu": True}, RequestError, "CPU build"),
    ],
)
def test_classify_refuses(mini: Predictor, arguments: dict, error: type, words: str) -> None:
    call = {"images": pictures(1), "labels": ["a", "b"]} | arguments
    if not arguments or "paths" in arguments:
        del call["images"]
    with pytest.raises(error, match=words):
        mini.classify(**call)


LISTED = {
    "tuple": tuple,
    "generator": iter,
    "dict keys": lambda items: dict.fromkeys(items).keys(),
    "numpy": np.array,
    "pandas": pd.Series,
    "arrow": pa.array,
    "arrow, chunked": lambda items: pa.chunked_array([items[:1], items[1:]]),
    "pandas, odd index": lambda items: pd.Series(items, index=[7, 3]),
}


@pytest.mark.parametrize("form", LISTED)
def test_every_argument_takes_what_can_be_listed(mini: Predictor, form: str) -> None:
    listed = LISTED[form]
    files, labels, templates = [str(DOG), str(CAT)], ["dog", "cat"], ["a {}", "the {}"]
    expected = mini.classify(paths=files, labels=labels, templates=templates)
    assert mini.classify(paths=listed(files), labels=listed(labels), templates=listed(templates)) == expected
    texts = mini.embed(texts=labels)["texts"]
    assert np.array_equal(mini.embed(texts=listed(labels))["texts"], texts)
    assert np.array_equal(tokenize(listed(labels)), tokenize(labels))


@pytest.mark.parametrize(
    "texts", [None, 3, b"a dog", np.array(3), pd.DataFrame({"text": ["a"]}), ["a", 3], [None]]
)
def test_what_cannot_be_tokenized_is_said(texts: Any) -> None:
    with pytest.raises(LabelError, match=r"expected a (list|string)"):
        tokenize(texts)


@pytest.mark.parametrize("option", ["exif_rotation", "fast_jpeg"])
def test_a_flag_is_true_or_false(mini: Predictor, option: str) -> None:
    for wrong in ("False", "no", None, 3):
        with pytest.raises(RequestError, match=f"{option} is {wrong!r}, expected True or False"):
            mini.with_options(**{option: wrong})
    assert getattr(mini.with_options(**{option: np.True_}).options, option) is True


@pytest.mark.parametrize("module", [None, 3, ["clip_mini"], b"clip_mini", "nope"])
def test_what_is_no_module_is_said_at_once(module: Any) -> None:
    with pytest.raises(RequestError, match="no module is named"):
        Predictor(module)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (5, "weights is a int"),
        ("", "no weights file"),
        ("~nobody.pt", "no weights file at ~nobody.pt"),
        ("x" * 300, "no weights file"),
        ("a\0b", "no weights file"),
        (str(ROOT), "no weights file"),
    ],
)
def test_weights_that_are_no_file_are_named(weights: Any, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        Predictor(pretrained("clip_mini"), weights).embed(texts=["a"])


def test_a_set_of_labels_is_taken_in_any_order(mini: Predictor) -> None:
    (answer,) = mini.classify(paths=[DOG], labels={"dog", "cat"})
    assert {item["label"] for item in answer} == {"dog", "cat"}


def test_images_in_any_container(mini: Predictor) -> None:
    images = [np.asarray(image.resize((40, 30))) for image in pictures(2)]
    expected = mini.embed(images=images)["images"]
    for listed in (tuple(images), iter(images), np.stack(images), pd.Series(images)):
        assert np.array_equal(mini.embed(images=listed)["images"], expected)


def test_one_image_path_or_text_is_a_list_of_one(mini: Predictor) -> None:
    content = DOG.read_bytes()
    expected = mini.embed(paths=[DOG])["images"]
    path_forms: list[Any] = [str(DOG), DOG, np.array(str(DOG))]
    for one in path_forms:
        assert np.array_equal(mini.embed(paths=one)["images"], expected)
    view = memoryview(content)
    image_forms: list[Any] = [Image.open(DOG), content, bytearray(content), view, [view]]
    for one in image_forms:
        assert np.array_equal(mini.embed(images=one)["images"], expected)
    array = np.asarray(Image.open(DOG).convert("RGB"))[..., ::-1]
    assert np.array_equal(mini.embed(images=array)["images"], mini.embed(images=[array])["images"])
    assert np.array_equal(mini.embed(texts="a dog")["texts"], mini.embed(texts=["a dog"])["texts"])


def test_labels_may_be_any_iterable_of_strings(mini: Predictor) -> None:
    expected = mini.classify(images=pictures(1), labels=["a", "b"])
    choices: list[Any] = [np.array(["a", "b"]), (label for label in "ab"), ("a", "b")]
    for labels in choices:
        assert mini.classify(images=pictures(1), labels=labels) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "nothing to embed"),
        ({"texts": []}, "texts is empty"),
        ({"texts": 5}, "texts is a int, expected a list"),
        ({"texts": iter(())}, "texts is empty"),
        ({"texts": b"a cat"}, r"texts\[0\] is a bytes"),
        ({"texts": ["a"], "normalize": "no"}, "normalize is 'no'"),
        ({"texts": ["a", None]}, r"texts\[1\] is a NoneType"),
        ({"texts": ["word " * 100]}, "begins 'word word"),
    ],
)
def test_embed_refuses(mini: Predictor, arguments: dict, words: str) -> None:
    with pytest.raises(ClipError, match=words):
        mini.embed(**arguments)


def test_one_bad_picture_costs_one_picture(mini: Predictor, tmp_path: Path) -> None:
    seeded.image().save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:900])
    named = [(name, tmp_path / name) for name in ("good.png", "bad.png", "good.png", "none.png", "good.png")]
    found = [item for batch in mini.image_features(named, batch_size=2) for item in batch]
    assert [isinstance(item, ImageError) for item in found] == [False, True, False, True, False]
    assert str(found[1]).startswith("bad.png: cannot be decoded")
    assert not isinstance(found[0], ImageError) and not isinstance(found[4], ImageError)
    assert np.allclose(found[0], found[4], atol=1e-6)


def test_an_image_that_breaks_in_preparation_costs_itself(mini: Predictor, monkeypatch: Any) -> None:
    whole: Any = Predictor.prepare(mini, ("x", pictures(1)[0]))
    crop = Preprocess.crop

    def breaking(self: Preprocess, image: Image.Image) -> np.ndarray:
        if image.size == (7, 7):
            raise TypeError("unsupported operand")  # as Pillow does for a PNG with two headers
        return crop(self, image)

    monkeypatch.setattr(Preprocess, "crop", breaking)
    named = [("good", pictures(1)[0]), ("bad", Image.new("RGB", (7, 7))), ("good", pictures(1)[0])]
    found: list[Any] = [item for batch in mini.image_features(named, batch_size=3) for item in batch]
    assert str(found[1]) == "bad: cannot be prepared (unsupported operand)"
    again: Any = mini.prepare(named[0])
    assert np.array_equal(again, whole)
    assert np.allclose(found[0], found[2], atol=1e-6)


def test_one_lazy_image_many_times_in_a_call_and_from_many_threads(mini: Predictor, tmp_path: Path) -> None:
    seeded.image().resize((900, 900)).save(tmp_path / "x.png")
    expected = mini.embed(paths=[tmp_path / "x.png"])["images"]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            lazy = Image.open(tmp_path / "x.png")
            for found in pool.map(lambda _, lazy=lazy: mini.embed(images=[lazy] * 4)["images"], range(4)):
                assert np.abs(found - expected).max() < 1e-5


def test_every_module_has_a_folder() -> None:
    assert {folder.parent.name for folder in (ROOT / "modules").glob("*/module.py")} == set(PRETRAINED)


def test_labels_that_are_the_same_to_the_model_are_warned_of_once(
    mini: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(label_embeddings, "_WARNED", set())
    mini.classify(paths=[DOG], labels=["a dog", "a cat"])
    assert "apart" not in caplog.text
    mini.classify(paths=[DOG], labels=["狗", "a cat", "猫"])  # clip_mini knows no Chinese
    assert "clip_mini cannot tell the labels '狗' and '猫' apart" in caplog.text
    mini.classify(paths=[DOG], labels=["雪", "猫"])
    assert caplog.text.count("apart") == 1
