"""Weights that were trained with GELU are never run with QuickGELU unsaid: one test for each way in."""

from __future__ import annotations

import json
import logging
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

import clip_common
from clip_common.cli.main import main
from clip_common.config import PRETRAINED, Activation, Preprocessing, Pretrained, WeightsSource
from clip_common.engines import compile_cache
from clip_common.errors import WeightsError
from clip_common.models.clip import CLIP
from clip_common.predictor import Predictor
from clip_common.system.cache import sha256_of
from clip_common.weights import locate
from clip_common.weights.convert import convert
from clip_common.weights.weights_file import read_openai, write_safetensors
from tests.parity import seeded
from tests.parity.tiny import TINY_CHINESE_VIT, TINY_VIT, TOKENS

ACTIVATIONS: tuple[Activation, ...] = ("quick_gelu", "gelu")
GELU = replace(TINY_VIT, activation="gelu")
OPEN_CLIP = {"model_cfg": {"embed_dim": 16}, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
HUGGING_FACE = {"model_type": "clip", "text_config": {"hidden_act": "gelu"},
                "vision_config": {"hidden_act": "gelu"}}  # fmt: skip


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretrained:
    """A module with two published weights, in an empty cache."""
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HUB_HOME", str(tmp_path / "hub"))
    own = WeightsSource("Tiny.pt", "0" * 64, "MIT", "http://127.0.0.1:9")
    other = WeightsSource("open_clip_model.safetensors", None, "MIT", huggingface="some/one",
                          tag="laion", activation="gelu")  # fmt: skip
    made = replace(PRETRAINED["clip_vit_b32"], name="clip_tiny", config=TINY_VIT, weights=own,
                   other_weights=(other,))  # fmt: skip
    monkeypatch.setitem(PRETRAINED, "clip_tiny", made)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of unknown origin, alone in its folder."""
    path = tmp_path / "somewhere" / "model.safetensors"
    path.parent.mkdir()
    write_safetensors(seeded.state(TINY_VIT), path, {})
    return path


def features(model: CLIP) -> np.ndarray:
    with paddle.no_grad():
        image = model.encode_image(paddle.to_tensor(seeded.pixels(TINY_VIT)))
        text = model.encode_text(paddle.to_tensor(TOKENS))
    return np.concatenate([image.numpy(), text.numpy()])


def expected(activation: str) -> np.ndarray:
    """What the seeded tensors give under an activation."""
    model = CLIP(replace(TINY_VIT, activation=activation))  # type: ignore[arg-type]
    model.load_openai(seeded.state(TINY_VIT))
    model.eval()
    return features(model)


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), "utf-8")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if "assumed" in entry.getMessage()]


def test_the_two_activations_differ_in_both_towers() -> None:
    """Else no test here could tell them apart."""
    quick, exact = expected("quick_gelu"), expected("gelu")
    assert (np.abs(quick - exact).max(axis=1) > 1e-3).all()


# --- what is beside a file decides --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "activation"),
    [
        ("open_clip_config.json", OPEN_CLIP, "gelu"),
        ("open_clip_config.json", {"model_cfg": {"quick_gelu": True}}, "quick_gelu"),
        ("config.json", HUGGING_FACE, "gelu"),
        ("config.json", {"text_config": {}, "vision_config": {}}, "quick_gelu"),  # transformers' default
        ("config.json", {"embed_dim": 16, "vision_cfg": {}, "text_cfg": {}}, "gelu"),  # open_clip's
        ("config.json", {"quick_gelu": True}, "quick_gelu"),
    ],
)
def test_the_config_beside_a_file_decides(
    name: str, content: Any, activation: str, record: Pretrained, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(file.with_name(name), content)
    model = clip_common.load(record.name, file)
    assert np.array_equal(features(model), expected(activation))
    assert said(caplog) == []


def test_without_one_what_is_assumed_is_said(
    record: Pretrained, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = clip_common.load(record.name, str(file))
    assert np.array_equal(features(model), expected("quick_gelu"))
    (message,) = said(caplog)
    assert str(file) in message and "quick_gelu is assumed" in message and "open_clip_config.json" in message


def test_a_config_of_something_else_says_nothing(
    record: Pretrained, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(file.with_name("config.json"), {"server": "nginx"})
    locate.find(record, file)
    assert len(said(caplog)) == 1


def test_mean_and_deviation_come_with_the_activation(record: Pretrained, file: Path) -> None:
    half = (0.5, 0.5, 0.5)
    write(file.with_name("open_clip_config.json"), OPEN_CLIP)
    assert Predictor(record, file).preprocess.settings == Preprocessing(mean=half, std=half)
    file.with_name("open_clip_config.json").unlink()
    write(file.with_name("config.json"), HUGGING_FACE)
    assert Predictor(record, file).preprocess.settings == Preprocessing()
    write(file.with_name("preprocessor_config.json"), {"image_mean": half, "image_std": half})
    assert Predictor(record, file).preprocess.settings == Preprocessing(mean=half, std=half)


def test_resizing_comes_with_it_too(record: Pretrained, file: Path) -> None:
    write(
        file.with_name("open_clip_config.json"),
        {"model_cfg": {}, "preprocess_cfg": {"resize_mode": "squash"}},
    )
    assert Predictor(record, file).preprocess.settings.resize == "squash"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"text_config": {"hidden_act": "gelu_new"}, "vision_config": {"hidden_act": "gelu_new"}},
            "gelu_new",
        ),
        (
            {"text_config": {"hidden_act": "gelu"}, "vision_config": {}},
            "gelu and quick_gelu|quick_gelu and gelu",
        ),
        ({"text_config": 3, "vision_config": {}}, "text_config is not"),
        ({"model_cfg": {}, "preprocess_cfg": {"resize_mode": "longest"}}, "not supported"),
        (
            {"model_cfg": {}, "preprocess_cfg": {"interpolation": "bilinear"}},
            "resizing that is not supported",
        ),
        ({"model_cfg": {}, "preprocess_cfg": {"mean": "half"}}, "its mean is 'half'"),
        ([], "is not a configuration"),
    ],
)
def test_a_config_that_cannot_be_followed_is_an_error(
    content: Any, words: str, record: Pretrained, file: Path
) -> None:
    write(file.with_name("config.json"), content)
    with pytest.raises(WeightsError, match=rf"config\.json.*({words})"):
        locate.find(record, file)


def test_a_berts_activation_is_its_own(file: Path, record: Pretrained) -> None:
    """transformers' ChineseCLIP has GELU in the text tower and QuickGELU in the other."""
    chinese = replace(record, config=TINY_CHINESE_VIT)
    write(file.with_name("config.json"), {"text_config": {"hidden_act": "gelu"}, "vision_config": {}})
    assert locate.find(chinese, file).record.config.activation == "quick_gelu"


# --- every way in -------------------------------------------------------------------------------------


def test_a_published_file_is_known_by_its_hash(
    record: Pretrained, file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = replace(record.other_weights[0], sha256=sha256_of(file))
    monkeypatch.setitem(PRETRAINED, "clip_tiny", replace(record, other_weights=(known,)))
    assert np.array_equal(features(clip_common.load(record.name, file)), expected("gelu"))
    assert said(caplog) == []


def test_a_tag(record: Pretrained, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whose hash is not known: it is put into the cache by hand, and never downloaded."""
    with pytest.raises(WeightsError, match=r"hash is not known.*huggingface\.co/some/one.*clip_tiny\.laion"):
        clip_common.load(record.name, "laion")
    store = tmp_path / "cache" / "weights"
    store.mkdir(parents=True)
    (store / "clip_tiny.laion.safetensors").write_bytes(file.read_bytes())
    assert np.array_equal(features(clip_common.load(record.name, "laion")), expected("gelu"))
    assert said(caplog) == []
    assert locate.find_local(record) is None  # the module's own are others


def test_a_mirror_is_no_way_to_a_file_without_a_hash(
    record: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its published address is told, and what goes with it; not one that is made of the hash."""
    monkeypatch.setenv("CLIP_HUB_MIRROR", "https://mirror/clip")
    with pytest.raises(
        WeightsError, match=r"huggingface\.co/some/one.*configuration published with it"
    ) as caught:
        clip_common.load(record.name, "laion")
    assert "None" not in str(caught.value) and "MIRROR" not in str(caught.value)


def test_a_name_that_is_no_file_and_no_tag(record: Pretrained) -> None:
    with pytest.raises(WeightsError, match=r"no weights file at laoin, .* only openai, laion"):
        clip_common.load(record.name, "laoin")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["paddle", "onnxruntime"])
def test_the_engines(engine: str, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """clip_mini, since the process that compiles knows the records that are in the package."""
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path / "cache"))
    record = PRETRAINED["clip_mini"]
    write_safetensors(seeded.state(record.config), file, {})
    vectors = {}
    for activation in ACTIVATIONS:
        write(file.with_name("config.json"), {"quick_gelu": activation == "quick_gelu"})
        model = CLIP(replace(record.config, activation=activation))
        model.load_openai(seeded.state(record.config))
        model.eval()
        predictor = Predictor(record, file, engine=engine)
        vectors[activation] = predictor.embed(texts=["a dog"], normalize=False)["texts"]
        with paddle.no_grad():
            wanted = model.encode_text(paddle.to_tensor(predictor.tokenize(["a dog"]))).numpy()
        assert predictor.engine().name == engine
        assert np.abs(vectors[activation] - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert np.abs(vectors["gelu"] - vectors["quick_gelu"]).max() > 1e-3


def test_what_is_kept_for_one_activation_is_not_used_for_the_other(record: Pretrained, file: Path) -> None:
    """The same bytes under two activations are two models: engines, label embeddings, stores."""
    quick = locate.find(record, file)
    write(file.with_name("config.json"), HUGGING_FACE)
    exact = locate.find(record, file)
    assert quick.sha256 == exact.sha256
    assert len({quick.identity, exact.identity}) == 2
    folders = {compile_cache._folder(found, "onnxruntime", "float32") for found in (quick, exact)}
    assert len(folders) == 2
    assert Predictor(record, file).weights_sha256 == exact.identity
    other = replace(exact, record=exact.record.with_settings("gelu", Preprocessing(resize="squash")))
    assert other.identity != exact.identity  # images' vectors are others


def test_converted_files_say_it_themselves(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = PRETRAINED["clip_mini"]
    write_safetensors(seeded.state(record.config), file, {})
    write(file.with_name("open_clip_config.json"), OPEN_CLIP)
    convert(file, tmp_path / "elsewhere.safetensors")
    found = locate.find(record, tmp_path / "elsewhere.safetensors").record
    assert (found.config.activation, found.preprocessing.mean) == ("gelu", (0.5, 0.5, 0.5))
    assert said(caplog) == []


def test_what_is_not_known_is_not_written_as_known(
    record: Pretrained, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    convert(file, tmp_path / "elsewhere.safetensors")
    clip_common.load(record.name, tmp_path / "elsewhere.safetensors")
    assert len(said(caplog)) == 1


@pytest.mark.slow
def test_packed_modules_say_it_themselves(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path / "cache"))
    record = PRETRAINED["clip_mini"]
    write_safetensors(seeded.state(record.config), file, {})
    write(file.with_name("config.json"), HUGGING_FACE)
    assert main(["pack", "clip_mini", "--weights", str(file), "--output", str(tmp_path)]) == 0
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extract("clip_mini/clip_mini.safetensors", tmp_path, filter="data")
    found = locate.find(record, module_dir=tmp_path / "clip_mini")
    assert found.path == tmp_path / "clip_mini" / "clip_mini.safetensors"
    assert found.record.config.activation == "gelu"
    assert said(caplog) == []


def test_verify_says_what_a_file_is_run_with(
    record: Pretrained, file: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIP_HUB_CACHE", str(file.parent / "cache"))
    mini = PRETRAINED["clip_mini"]
    write_safetensors(seeded.state(mini.config), file, {})
    write(file.with_name("config.json"), HUGGING_FACE)
    main(["weights", "verify", "clip_mini", str(file)])
    assert "activation and preprocessing: gelu, crop" in capsys.readouterr().out


def test_list_names_tags_activations_and_accuracies(capsys: pytest.CaptureFixture) -> None:
    assert main(["weights", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "laion2b_s34b_b79k" in line]
    assert "gelu" in line and "quick" not in line and "66.6%" in line


def test_fetch_of_an_unknown_tag_lists_those_that_are(capsys: pytest.CaptureFixture) -> None:
    assert main(["weights", "fetch", "clip_vit_b32", "laion3b"]) == 1
    assert "datacomp_xl_s13b_b90k" in capsys.readouterr().err


def test_a_state_dict_alone_is_read_into_what_the_caller_built(file: Path) -> None:
    """`load_dict` cannot know: the model's architecture, activation included, is the caller's word."""
    model = CLIP(GELU)
    model.load_dict(read_openai(file))
    model.eval()
    assert np.array_equal(features(model), expected("gelu"))


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
