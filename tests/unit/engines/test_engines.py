"""Engines: the compiled towers give the model's features; what goes wrong costs speed only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from clip_common.cli.main import main
from clip_common.config import PRETRAINED, VIT_B32, Pretrained, pretrained
from clip_common.engines import artifacts, calibration, compile_cache, compile_worker, select
from clip_common.engines.compiled_engine import CompiledEngine
from clip_common.engines.paddle_engine import PaddleEngine
from clip_common.engines.select import Engines, choose
from clip_common.engines.text_batching import encode_in_batches, prefix_batches
from clip_common.errors import ClipError, RequestError, WeightsError
from clip_common.models.factory import load_model
from clip_common.predictor import Predictor
from clip_common.system import cpu, output
from clip_common.system.cache import sha256_of
from clip_common.text.tokenizer import tokenize
from clip_common.weights.locate import find
from clip_common.weights.readers import read_state
from clip_common.weights.weights_file import WeightsFile, write_safetensors
from tests.parity import seeded
from tests.parity.compare import EMBEDDING_BOUND
from tests.parity.tiny import TINY_CHINESE_VIT
from tests.support.full_disk import FullDisk
from tests.support.paths import ROOT

MINI = pretrained("clip_mini")
RUNTIMES = ("onnxruntime", "openvino")
TEXTS = [*seeded.TEXTS, "x", "a dog " * 30]
EXAMPLE = ROOT / "examples" / "diagram.png"


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the test's own."""
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"


@pytest.fixture(scope="module")
def mini() -> WeightsFile:
    return find(MINI)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Nine images, more than go through a compiled tower at once."""
    return np.repeat(seeded.pixels(MINI.config), 3, axis=0)[:9]


@pytest.fixture(scope="module")
def of_the_model(mini: WeightsFile, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """What the model gives of these images and of `TEXTS`, and its logit scale."""
    model = PaddleEngine(load_model(mini))
    return model.encode_image(pixels), model.encode_text(tokenize(TEXTS), 2), model.logit_scale


# --- batches of texts -------------------------------------------------------------------------------


def test_texts_of_a_bert_come_back_in_their_order_from_batches() -> None:
    """Sorted by length, each batch padded to its longest, of no more tokens than are allowed."""
    rng = np.random.default_rng(0)
    ids = np.zeros((50, 52), np.int64)
    for row in ids:
        length = rng.integers(2, 53)
        row[:length] = rng.integers(1, 100, length)
    ids[7], seen = np.r_[101, 102, [0] * 50], []

    def encode(text: np.ndarray) -> np.ndarray:
        seen.append(text.shape)
        return np.pad(text, [(0, 0), (0, 52 - text.shape[1])])

    for batch_size, most in ((1, None), (7, None), (1000, None), (32, 100), (32, 1)):
        seen.clear()
        found = encode_in_batches(TINY_CHINESE_VIT.text, ids, encode, batch_size, most)
        np.testing.assert_array_equal(found, ids)
        assert seen == sorted(seen, key=lambda shape: shape[1])
        for count, length in seen:
            assert count <= batch_size and (most is None or count == 1 or count * length <= most)
    assert seen[0] == (1, 2)


PROMPTS = [f"a photo of a {name}." for name in "cat dog house bicycle lighthouse".split()] * 40


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], PROMPTS, PROMPTS + TEXTS])
def test_texts_come_back_in_their_order_from_batches(texts: list[str]) -> None:
    ids = tokenize(texts)
    seen = []

    def encode(beginning: np.ndarray, rest: np.ndarray) -> np.ndarray:
        seen.append((len(beginning), *rest.shape))
        whole = np.concatenate([np.broadcast_to(beginning, (len(rest), len(beginning))), rest], axis=1)
        return np.pad(whole, [(0, 0), (0, 77 - whole.shape[1])])

    for batch_size, most in ((1, None), (2, None), (32, None), (1000, None), (32, 10), (32, 1)):
        seen.clear()
        found = encode_in_batches(VIT_B32.text, ids, encode, batch_size, most)
        np.testing.assert_array_equal(found, ids)
        for shared, count, length in seen:
            assert shared >= 1 and length >= 1 and count <= batch_size
            assert most is None or count == 1 or shared + count * length <= most


def test_what_texts_begin_with_goes_into_a_batch_once() -> None:
    def shapes(texts: list[str]) -> list[tuple[int, int, int]]:
        batches = prefix_batches(tokenize(texts), 1000)
        return [(len(batch.prefix), *batch.suffix.shape) for batch in batches]

    assert shapes(PROMPTS) == [(5, 200, 3)]  # start, a, photo, of, a
    drawings = [prompt.replace("photo", "drawing") for prompt in PROMPTS]
    assert sorted(shapes(PROMPTS + drawings)) == [(5, 200, 3), (5, 200, 3)]
    assert shapes(["cat", "dog"]) == [(1, 2, 2)]
    assert shapes(["cat"]) == [(1, 1, 2)]
    # Few texts that begin alike are not worth a batch of their own.
    assert shapes([*PROMPTS[:3], "cat"]) == [(1, 4, 7)]


# --- compiled -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_compiled_engine_gives_the_models_features(
    name: str, mini: WeightsFile, pixels: np.ndarray, of_the_model: tuple[np.ndarray, np.ndarray, float]
) -> None:
    pytest.importorskip(name)
    engines = Engines(mini, choose(name))
    compiled_engine = engines.get(use_gpu=False)
    assert isinstance(compiled_engine, CompiledEngine) and compiled_engine.name == name
    images, texts, logit_scale = of_the_model
    for ours, expected in (
        (compiled_engine.encode_image(pixels), images),
        (compiled_engine.encode_text(tokenize(TEXTS), 2), texts),
    ):
        assert ours.dtype == np.float32
        assert np.abs(unit(ours) - unit(expected)).max() <= EMBEDDING_BOUND
    assert engines.logit_scale == pytest.approx(logit_scale)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_compiled_engine_answers_threads_side_by_side(name: str, mini: WeightsFile) -> None:
    pytest.importorskip(name)
    compiled_engine = Engines(mini, choose(name)).get(use_gpu=False)
    pixels = np.repeat(seeded.pixels(MINI.config), 2, axis=0)
    expected = [compiled_engine.encode_image(pixels[i : i + 1]) for i in range(len(pixels))]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: compiled_engine.encode_image(pixels[i % 8 :][:1]), range(32)))
    for i, feature in enumerate(found):
        np.testing.assert_allclose(feature, expected[i % 8], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not cpu.computes_bfloat16(), reason="this CPU has no bfloat16")
def test_bfloat16_is_near_float32(mini: WeightsFile) -> None:
    pytest.importorskip("openvino")
    paths = sorted((ROOT / "examples").glob("*.png"))
    exact, near = (
        Predictor(MINI, precision=name).embed(paths=paths)["images"] for name in ("float32", "bfloat16")
    )
    assert not np.array_equal(exact, near)
    assert (exact * near).sum(axis=1).min() > 0.99


needs_vnni = pytest.mark.skipif(not cpu.computes_int8(), reason="this CPU has no VNNI")


@pytest.mark.slow
@needs_vnni
def test_int8_is_near_float32_and_the_text_encoder_stays_in_it(mini: WeightsFile) -> None:
    pytest.importorskip("openvino")
    exact, near = (Engines(mini, choose("openvino", name)).get(False) for name in ("float32", "int8"))
    prepare = Predictor(MINI).preprocess
    pixels = np.stack([prepare.pixels(path, "") for path in sorted(EXAMPLE.parent.glob("*.jpg"))])
    wanted, found = (unit(engine.encode_image(pixels)) for engine in (exact, near))
    assert not np.array_equal(wanted, found)
    assert (wanted * found).sum(axis=1).min() > 0.95
    ids = tokenize(TEXTS)
    np.testing.assert_array_equal(near.encode_text(ids, 32), exact.encode_text(ids, 32))


@pytest.mark.slow
@needs_vnni
def test_an_image_in_int8_does_not_depend_on_its_neighbours(mini: WeightsFile) -> None:
    """Scales that were taken from each batch would."""
    pytest.importorskip("openvino")
    engine = Engines(mini, choose("openvino", "int8")).get(False)
    pixels = seeded.pixels(MINI.config)[:3]
    alone = engine.encode_image(pixels[:1])[0]
    for others in (pixels[1:], pixels[1:] * 1000, pixels[1:] * 0, np.repeat(pixels[1:], 3, axis=0)):
        np.testing.assert_array_equal(engine.encode_image(np.concatenate([pixels[:1], others]))[0], alone)


@pytest.mark.slow
def test_weights_that_int8_does_not_suit_are_refused(
    mini: WeightsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = json.dumps(["quick_gelu", asdict(MINI.preprocessing)])
    given = [settings, str(mini.path), mini.sha256, "onnxruntime", "int8", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["worker", "clip_mini", *given])
    monkeypatch.setattr(compile_worker, "_mean_cosine", lambda *_: 0.42)
    with pytest.raises(SystemExit, match=r"int8 does not suit these weights.*0\.42"):
        compile_worker.main()


def test_a_worker_knows_how_its_weights_see_images() -> None:
    """int8 is calibrated on images as the model sees them."""
    seen = replace(MINI.preprocessing, mean=(0.1, 0.2, 0.3), background=None, resize="squash")
    settings = json.dumps(["gelu", asdict(seen)])
    found = compile_worker._with_settings(MINI, settings)
    assert found.preprocessing == seen and found.config.activation == "gelu"


def test_it_is_compiled_once(mini: WeightsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = compile_cache.compiled_folder(mini, "onnxruntime")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert compile_cache.compiled_folder(mini, "onnxruntime") == folder
    monkeypatch.setattr(compile_cache, "source_digest", lambda *_: "another")
    with pytest.raises(pytest.fail.Exception):
        compile_cache.compiled_folder(mini, "onnxruntime")


def test_it_is_read_through_once_a_process(
    cache: Path, mini: WeightsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was compiled a moment ago has no remembered hash yet: of a large model that takes a second."""
    checked: list[Path] = []
    right = compile_cache.is_whole

    def is_whole(folder: Path) -> bool:
        checked.append(folder)
        return right(folder)

    compile_cache.compiled_folder(mini, "onnxruntime")
    monkeypatch.setattr(compile_cache, "is_whole", is_whole)
    engine = Engines(mini, choose("onnxruntime")).get(use_gpu=False)
    engine.encode_image(seeded.pixels(MINI.config)[:1])
    engine.encode_text(tokenize(["a dog"]), 1)
    assert len(checked) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNTIMES)
def test_a_damaged_one_is_compiled_again(name: str, cache: Path, mini: WeightsFile) -> None:
    pytest.importorskip(name)
    folder = compile_cache.compiled_folder(mini, name)
    before = Engines(mini, choose(name)).get(use_gpu=False).encode_text(tokenize(["a dog"]), 1)
    for file, damage in ((artifacts.file_of("text"), b"x" * 100), (artifacts.MANIFEST, b"{}")):
        (folder / file).write_bytes(damage)
        engine = Engines(mini, choose(name)).get(use_gpu=False)
        assert isinstance(engine, CompiledEngine)
        np.testing.assert_array_equal(engine.encode_text(tokenize(["a dog"]), 1), before)
    assert not [file for file in folder.parent.iterdir() if file.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNTIMES)
def test_a_tower_that_vanished_before_it_was_opened_is_compiled_again(
    name: str,
    cache: Path,
    mini: WeightsFile,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another process prunes, or a user clears the cache, when this one has opened the other tower alone."""
    pytest.importorskip(name)
    engine = Engines(mini, choose(name)).get(use_gpu=False)
    pixels, ids = seeded.pixels(MINI.config), tokenize(["a dog"])
    image = engine.encode_image(pixels)
    shutil.rmtree(cache)
    assert engine.encode_text(ids, 1).shape == (1, MINI.config.embed_dim)
    np.testing.assert_array_equal(engine.encode_image(pixels), image)
    assert not caplog.records
    # Where that fails too, it costs speed only.
    engine = Engines(mini, choose(name)).get(use_gpu=False)
    shutil.rmtree(cache)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for _ in range(2):
        assert np.abs(unit(engine.encode_image(pixels)) - unit(image)).max() <= EMBEDDING_BOUND
    assert caplog.text.count("runs on Paddle in float32, which is slower") == 1


@pytest.mark.slow
def test_a_tower_that_cannot_be_opened_is_compiled_again(
    cache: Path, mini: WeightsFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engines(mini, choose("onnxruntime")).get(use_gpu=False)
    (folder,) = (path for path in (cache / "engines").iterdir() if path.is_dir())
    (folder / artifacts.file_of("text")).write_bytes(b"no graph")
    monkeypatch.setattr(compile_cache, "is_whole", lambda _: True)
    assert engine.encode_text(tokenize(["a dog"]), 1).shape == (1, MINI.config.embed_dim)
    assert not caplog.records  # which would say that it runs on Paddle


def test_other_users_can_read_what_is_compiled(mini: WeightsFile) -> None:
    folder = compile_cache.compiled_folder(mini, "onnxruntime")
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}


def test_bfloat16_that_cannot_be_compiled_is_an_error(
    cache: Path, mini: WeightsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors of another precision under its name would be mixed with those of its own."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    engines = Engines(mini, select.Choice("openvino", "bfloat16", "asked for"))
    with pytest.raises(ClipError, match=r"clip_mini cannot be compiled for precision 'bfloat16'.*status 1"):
        engines.get(use_gpu=False)


def test_weights_that_are_replaced_before_they_are_compiled_are_not(cache: Path, tmp_path: Path) -> None:
    """Towers are kept under the hash of the file that was found."""
    found = WeightsFile(tmp_path / "w.safetensors", sha256_of(find(MINI).path), MINI)
    state = {name: value + 0 for name, value in read_state(find(MINI).path).items()}
    write_safetensors({**state, "logit_scale": state["logit_scale"] + 1}, found.path, {})
    with pytest.raises(compile_cache.CompileError, match=r"w\.safetensors was replaced"):
        compile_cache.compiled_folder(found, "onnxruntime")
    with pytest.raises(WeightsError, match=r"w\.safetensors was replaced while it was in use"):
        load_model(found)


def test_a_cache_that_cannot_be_written_costs_only_speed(
    tmp_path: Path, mini: WeightsFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("CLIP_HUB_CACHE", str(blocked / "cache"))
    answer = Predictor(MINI).classify(paths=[EXAMPLE], labels=["a diagram", "a dog"])
    assert answer[0][0]["label"] == "a diagram"
    assert "runs on Paddle in float32, which is slower" in caplog.text


def test_a_compiler_that_fails_costs_only_speed(
    cache: Path, mini: WeightsFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    answer = Predictor(MINI).classify(paths=[EXAMPLE], labels=["a diagram", "a dog"])
    assert answer[0][0]["label"] == "a diagram"
    assert "compiling ended with status 1" in caplog.text
    assert not [folder for folder in (cache / "engines").iterdir() if folder.is_dir()]


@pytest.mark.parametrize(
    ("engine", "precision"), [("onnxruntime", "float32"), ("openvino", "bfloat16"), ("openvino", "int8")]
)
def test_a_full_cache_is_named(
    engine: str, precision: str, cache: Path, mini: WeightsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `ulimit -f` brings it about."""
    pytest.importorskip(engine)
    python = cache.parent / "python"
    python.write_text(f'#!/bin/bash\nulimit -f 1000\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    said = (
        rf"^the cache {cache}/engines cannot be written \(the file is larger than the limit here: .*\); set"
    )
    with pytest.raises(compile_cache.CompileError, match=said):
        compile_cache.compiled_folder(mini, engine, precision)
    assert not [folder for folder in (cache / "engines").iterdir() if folder.is_dir()]


def test_a_full_disk_that_a_library_tells_in_its_own_words(
    mini: WeightsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_work: object, _tower: str) -> None:
        monkeypatch.setattr(output.tempfile, "TemporaryFile", lambda **_: FullDisk())
        raise RuntimeError("cannot deserialize")

    monkeypatch.setattr(compile_worker._Work, "__call__", fails)
    settings = json.dumps([MINI.config.activation, asdict(MINI.preprocessing)])
    weights = [str(mini.path), mini.sha256]
    monkeypatch.setattr(
        sys, "argv", ["", MINI.name, settings, *weights, "onnxruntime", "float32", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as stop:
        compile_worker.main()
    assert stop.value.code == artifacts.NO_ROOM
    assert capsys.readouterr().err == "the disk is full: free some space, or choose another place\n"


def test_towers_that_give_something_else_are_refused(
    mini: WeightsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = compile_worker.open_graph
    monkeypatch.setattr(compile_worker, "open_graph", lambda path: lambda *given: right(path)(*given) * 1.001)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "worker",
            "clip_mini",
            json.dumps(["quick_gelu", asdict(MINI.preprocessing)]),
            str(mini.path),
            mini.sha256,
            "onnxruntime",
            "float32",
            str(tmp_path),
        ],
    )
    with pytest.raises(SystemExit, match="gives other features than its graph"):
        compile_worker.main()
    assert not (tmp_path / "manifest.json").exists()


def test_the_cache_of_engines_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "data").write_bytes(bytes(100))
        os.utime(folder, (number, number))
    monkeypatch.setattr(compile_cache, "_KEPT", 4)
    compile_cache._prune(tmp_path, tmp_path / "0")  # the oldest, and in use
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["0", "2", "3", "4"]
    monkeypatch.setattr(compile_cache, "_KEPT_BYTES", 250)
    (tmp_path / ".left.behind").mkdir()
    os.utime(tmp_path / ".left.behind", (5, 5))
    (tmp_path / ".under.way").mkdir()
    compile_cache._prune(tmp_path, tmp_path / "0")
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [".under.way", "0", "4"]


def test_pruning_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process removes at the same time is no fault."""
    for name in ("gone", "used"):
        (tmp_path / name).mkdir()
    listed = list(tmp_path.iterdir())
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(listed) if path == tmp_path else iter(()))
    monkeypatch.setattr(Path, "is_dir", lambda _: True)
    (tmp_path / "gone").rmdir()
    compile_cache._prune(tmp_path, tmp_path / "used")
    monkeypatch.undo()
    assert [folder.name for folder in tmp_path.iterdir()] == ["used"]


def test_what_is_compiled_depends_on_weights_and_machine(
    mini: WeightsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(weights: WeightsFile = mini, record: Pretrained = MINI, precision: str = "float32") -> Path:
        return compile_cache._folder(replace(weights, record=record), "onnxruntime", precision)

    first = folder()
    others = {folder(WeightsFile(mini.path, "0" * 64, MINI)), folder(precision="bfloat16")}
    others |= {folder(record=record) for record in PRETRAINED.values() if record is not MINI}
    others.add(folder(record=MINI.with_settings("gelu", MINI.preprocessing)))
    for what in ("source_digest", "versions"):  # of this package, and of what exports the towers
        with monkeypatch.context() as patched:
            patched.setattr(compile_cache, what, lambda *_: ["another"])
            others.add(folder())
    rounded = folder(precision="int8")
    others.add(rounded)
    with monkeypatch.context() as patched:  # other images to calibrate on, and images seen otherwise
        patched.setattr(calibration, "digest", lambda: "another")
        others.add(folder(precision="int8"))
    seen = MINI.with_settings(MINI.config.activation, replace(MINI.preprocessing, resize="squash"))
    others.add(folder(record=seen, precision="int8"))
    monkeypatch.setattr(cpu, "identity", lambda: "another")
    others.add(folder())
    assert first not in others and len(others) == 9 + len(PRETRAINED) - 1


# --- the choice ---------------------------------------------------------------------------------------


def test_the_choice_is_explained_and_wrong_names_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"avx2"}))
    assert choose("auto")[:2] == ("onnxruntime", "float32") and "fastest" in choose("auto").reason
    assert choose("paddle").name == "paddle"
    with pytest.raises(RequestError, match="precision is 'float8', expected one of float32, bfloat16, int8"):
        Predictor(MINI, precision="float8")
    with pytest.raises(RequestError, match="engine is 'tensorrt', expected one of auto"):
        Predictor(MINI, engine="tensorrt")
    monkeypatch.setattr(select.importlib.util, "find_spec", lambda _: None)
    assert choose("auto").name == "paddle" and "not installed" in choose("auto").reason
    with pytest.raises(RequestError, match="pip install onnxruntime"):
        choose("onnxruntime")


def test_the_processor_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"avx2"}))
    assert choose("auto").name == "onnxruntime"
    for precision, needed in (("bfloat16", "AMX or AVX512-BF16"), ("int8", "AVX-512 VNNI or AVX-VNNI")):
        with pytest.raises(RequestError, match=f"this CPU does not support .it needs {needed}"):
            choose("auto", precision)
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"avx2", "avx512f", "avx512_vnni"}))
    assert choose("auto", "int8")[:2] == ("openvino", "int8")
    with pytest.raises(
        RequestError, match="precision is 'int8', and engine 'onnxruntime' computes in float32"
    ):
        choose("onnxruntime", "int8")
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"avx2", "avx512f", "amx_bf16"}))
    assert choose("auto").name == "openvino"
    assert choose("auto", "bfloat16")[:2] == ("openvino", "bfloat16")
    for name in ("onnxruntime", "paddle"):
        with pytest.raises(RequestError, match=f"engine '{name}' computes in float32"):
            choose(name, "bfloat16")
    monkeypatch.setattr(select.importlib.util, "find_spec", lambda name: name != "openvino" or None)
    assert choose("auto").name == "onnxruntime"
    with pytest.raises(RequestError, match="pip install openvino"):
        choose("auto", "bfloat16")


def test_openvino_is_not_opened_where_it_would_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a current folder that this user may not enter."""

    def locked(*_: object) -> None:
        raise PermissionError(13, "Permission denied", ".bin")

    monkeypatch.setattr(select.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"avx2", "avx512f", "amx_bf16"}))
    monkeypatch.setattr(select.os, "stat", locked)
    assert choose("auto").name == "onnxruntime"
    for asked in (("openvino",), ("auto", "bfloat16")):
        with pytest.raises(RequestError, match="access to the current folder is denied"):
            choose(*asked)


def test_both_engines_give_one_answer(mini: WeightsFile) -> None:
    answers = [
        Predictor(MINI, engine=name).classify(paths=[EXAMPLE], top_k=300)
        for name in ("onnxruntime", "paddle")
    ]
    scores = [{item["label"]: item["score"] for item in answer[0]} for answer in answers]
    assert scores[0].keys() == scores[1].keys()
    assert max(abs(scores[0][label] - scores[1][label]) for label in scores[0]) <= 1e-5


@pytest.mark.slow
def test_a_second_process_finds_everything_and_reads_no_weights(cache: Path, tmp_path: Path) -> None:
    """Label vectors and engines are kept, so weights need not be opened again."""
    folder = tmp_path / "clip_mini"
    folder.mkdir()
    shutil.copy(find(MINI).path, folder / "clip_mini.safetensors")
    script = (
        "import sys, json; from pathlib import Path; from clip_common.config import pretrained\n"
        "from clip_common import predictor\n"
        "if sys.argv[2] == 'again':\n"
        "    sys.modules['clip_common.models.factory'] = None\n"
        "    predictor.tokenize = None\n"
        "p = predictor.Predictor(pretrained('clip_mini'), module_dir=Path(sys.argv[1]))\n"
        f"print(json.dumps(p.classify(paths=[{str(EXAMPLE)!r}], labels=['a diagram', 'a dog'])))\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script, str(folder), turn],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=240,
        ).stdout
        for turn in ("first", "again")
    ]
    assert json.loads(outputs[0].splitlines()[-1]) == json.loads(outputs[1].splitlines()[-1])


def test_the_choice_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIP_HUB_CACHE", str(tmp_path))
    assert main(["engine", "clip_mini"]) == 0
    said = capsys.readouterr().out
    assert "float32: the fastest measured on CPUs" in said
    assert "not compiled yet" in said
    assert main(["engine", "clip_mini", "--engine", "paddle"]) == 0
    assert capsys.readouterr().out == "paddle, float32: asked for by name\n"


@pytest.mark.slow
def test_any_thread_may_be_the_first_to_import_paddle() -> None:
    """Paddle's mode is each thread's own: what imports it in a thread leaves the others in static mode."""
    code = """
import sys
from threading import Thread
import numpy as np
from clip_common.config import pretrained
from clip_common.predictor import Predictor

assert "paddle" not in sys.modules
first = Thread(target=__import__, args=["paddle"])
first.start()
first.join()
predictor = Predictor(pretrained("clip_mini"), engine="paddle")
here = predictor.embed(texts=["a dog"])["texts"]
found = []
other = Thread(target=lambda: found.append(predictor.embed(texts=["a dog"])["texts"]))
other.start()
other.join()
assert np.array_equal(found[0], here)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
