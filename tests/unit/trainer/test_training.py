"""The trainer, on a tiny model and images made here."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
import psutil
import pytest
from PIL import Image

from clip_common.config import ClipConfig, ResNetConfig, TextConfig
from clip_common.errors import TrainingError
from clip_common.models.clip import CLIP
from clip_common.text.tokenizer import tokenize
from clip_common.trainer import checkpoint, muon, parallel
from clip_common.trainer.loss import contrastive_loss
from clip_common.weights.readers import read_state
from clip_common.weights.weights_file import write_safetensors
from recipes.clip_mini import train
from recipes.clip_mini.augment import augment
from recipes.clip_mini.batches import Batch, Batches, Settings
from recipes.clip_mini.captions import draw_subject, head_noun, is_clean, may_flip, put_in_template
from recipes.clip_mini.data import (
    Caption,
    Dataset,
    near_duplicates,
    package_drawings,
    perceptual_hash,
    prepare,
)
from recipes.clip_mini.diagrams import draw_diagrams
from recipes.clip_mini.evaluate import Share
from recipes.clip_mini.export import openai_state
from recipes.clip_mini.sources import LICENCES, SOURCES, Drawing, Source
from recipes.clip_mini.splits import Split, rows_of, split_of
from recipes.clip_mini.vocabulary import rows_in, tokens_of, training_vocabulary

TINY = ClipConfig("tiny", 32, 64, ResNetConfig((1, 1, 1, 1), 8), TextConfig(64, 1, 77, 49408))
SETTINGS = Settings(steps=6, batch_size=16, warm_up=2, small_share=0.4, workers=1)
COLOURS = ("red", "green", "blue", "black")


def caption(number: int, **changes: str) -> Caption:
    fields = {
        "name": f"{COLOURS[number % 4]} square", "source": "made", "licence": "CC0-1.0", "style": "own",
        "concept": f"c{number}", "near": f"c{number}",
    }  # fmt: skip
    return Caption(**{**fields, **changes}, tags=("shape",), weight=1.0)


def coloured(number: int) -> np.ndarray:
    image = np.zeros((96, 96, 4), np.uint8)
    image[20:76, 20:76, 3] = 255
    if number % 4 < 3:
        image[20:76, 20:76, number % 4] = 255
    return image


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Dataset(np.stack([coloured(i) for i in range(40)]), [caption(i) for i in range(40)])


@pytest.fixture(scope="module")
def whole_run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Checkpoint:
    return run(data, SETTINGS, tmp_path_factory.mktemp("run"))


def run(data: Dataset, settings: Settings, output: Path, **options: Any) -> checkpoint.Checkpoint:
    train.train(data, settings, output, TINY, **options)
    return checkpoint.load(output / "checkpoint.npz")


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def drawing(name: str, content: bytes) -> Drawing:
    return Drawing(name, (), name, Source("made", "1", "CC0-1.0", "us", "own"), content)


# --- training -----------------------------------------------------------------------------------------


def test_loss_falls(whole_run: checkpoint.Checkpoint) -> None:
    assert whole_run.step == 6
    assert whole_run.curve[-2:, 0].mean() < whole_run.curve[:2, 0].mean() - 0.1


def test_a_killed_run_resumes_on_the_same_curve(
    data: Dataset, whole_run: checkpoint.Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = train.MiniTrainer.step

    def killed_at_the_fifth(self: train.MiniTrainer, batch: Batch) -> float:
        if self.done == 4:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(train.MiniTrainer, "step", killed_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        run(data, SETTINGS, tmp_path, save_every=3)
    monkeypatch.undo()
    resumed = run(data, SETTINGS, tmp_path, resume=True, save_every=3)
    np.testing.assert_allclose(resumed.curve[:, 0], whole_run.curve[:, 0], rtol=1e-5)
    for name, value in whole_run.average.items():
        np.testing.assert_allclose(resumed.average[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    with pytest.raises(TrainingError, match="other settings"):
        run(data, replace(SETTINGS, steps=7), tmp_path, resume=True)


@pytest.fixture
def exported(
    data: Dataset, whole_run: checkpoint.Checkpoint, tmp_path: Path
) -> tuple[Path, dict[str, np.ndarray]]:
    """A weights file of a run, and what is in it: its average, in the precision of such files."""
    stored = {name: value.astype(np.float16).astype(np.float32) for name, value in whole_run.average.items()}
    path = tmp_path / "other.safetensors"
    write_safetensors(openai_state(stored, training_vocabulary(data), TINY.text.vocab_size), path, {})
    return path, stored


def test_a_run_begins_with_anothers_weights(
    data: Dataset, exported: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    weights, stored = exported
    still = replace(SETTINGS, steps=1, learning_rate=0.0, seed=1)
    begun = run(data, still, tmp_path / "still", begin_with=weights)
    for name, value in stored.items():
        if "_mean" not in name and "_variance" not in name:  # statistics follow what is seen
            np.testing.assert_allclose(begun.model[name], value, rtol=1e-6, err_msg=name)


def test_tokens_that_the_weights_to_begin_with_do_not_know_are_drawn(
    data: Dataset, exported: tuple[Path, dict[str, np.ndarray]]
) -> None:
    weights, stored = exported
    known = training_vocabulary(data)
    vocabulary = tokens_of(caption(i, name=f"grey {i}") for i in range(40))
    trainer = train.MiniTrainer(TINY, SETTINGS, vocabulary)
    drawn = trainer.clip.token_embedding.weight.numpy()
    trainer.begin_with_file(weights)
    rows = trainer.clip.token_embedding.weight.numpy()
    new = ~np.isin(vocabulary, known)
    assert new.any() and not new.all()
    np.testing.assert_array_equal(rows[new], drawn[new])
    learned = stored["token_embedding.weight"][np.searchsorted(known, vocabulary[~new])]
    np.testing.assert_allclose(rows[~new], learned, rtol=1e-6)


def test_weights_that_a_run_cannot_begin_with(tmp_path: Path) -> None:
    trainer = train.MiniTrainer(TINY, SETTINGS, tokens_of([caption(0)]))
    other = tmp_path / "other.safetensors"
    write_safetensors({"logit_scale": np.zeros([], np.float32)}, other, {})
    with pytest.raises(TrainingError, match=r"--begin-with: .*other\.safetensors: these are not the weights"):
        trainer.begin_with_file(other)
    with pytest.raises(TrainingError, match=r"--begin-with .*nowhere\.safetensors: no such file"):
        nowhere = tmp_path / "nowhere.safetensors"
        train.check(tmp_path, SETTINGS, tmp_path / "new", resume=False, begin_with=nowhere)


def test_a_half_written_checkpoint_is_refused(whole_run: checkpoint.Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, whole_run)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainingError, match="not a whole checkpoint"):
        checkpoint.load(path)
    with pytest.raises(TrainingError, match="no checkpoint"):
        checkpoint.load(tmp_path / "none.npz")


def test_a_full_disk_leaves_the_checkpoint_before(
    whole_run: checkpoint.Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, whole_run)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(TrainingError, match="No space left"):
        checkpoint.save(path, whole_run)
    assert checkpoint.load(path).step == 6
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.npz"]


def test_positives_share_a_subject_or_a_concept() -> None:
    none = np.zeros(0)
    batch = Batch(none, none, subjects=np.array([0, 0, 1, 2]), concepts=np.array([5, 6, 6, 7]))
    expected = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(train.positives(batch), np.array(expected, bool))


def test_the_loss_spreads_the_target_over_positives() -> None:
    features = paddle.eye(2)[paddle.to_tensor([0, 0, 1])]
    scale = paddle.to_tensor(5.0)
    two = paddle.to_tensor([[True, True, False], [True, True, False], [False, False, True]])
    alone = paddle.eye(3).astype("bool")
    for positive in (two, alone):
        loss = contrastive_loss(features, features, scale, positive)
        assert float(loss) == pytest.approx(np.log(2) * 2 / 3, abs=1e-3)
    wrong = contrastive_loss(features, features[paddle.to_tensor([2, 1, 0])], scale, two)
    assert float(wrong) > 10


FEATURES = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")  # towers N D
SCALE = 1.5


def gradients_of(image: np.ndarray, text: np.ndarray) -> list[np.ndarray]:
    weight, scale = (paddle.to_tensor(value, stop_gradient=False) for value in (np.eye(3, dtype="f"), SCALE))
    images, texts = (parallel.gather(paddle.to_tensor(array) @ weight) for array in (image, text))
    contrastive_loss(images, texts, parallel.shared(scale), paddle.eye(4).astype("bool")).backward()
    parallel.sum_gradients([weight, scale])
    return [weight.grad.numpy(), scale.grad.numpy()]


def write_gradients(folder: str) -> None:
    parallel.configure(2)
    part = slice(2 * dist.get_rank(), 2 * dist.get_rank() + 2)
    weight, scale = gradients_of(FEATURES[0, part], FEATURES[1, part])
    np.savez(Path(folder) / f"{dist.get_rank()}.npz", weight=weight, scale=scale)


def fail_in_a_worker() -> None:
    raise ValueError("no room left")


@pytest.mark.slow
def test_two_workers_make_the_step_of_one(tmp_path: Path) -> None:
    weight, scale = gradients_of(*FEATURES)
    parallel.start(write_gradients, (str(tmp_path),), 2)
    for worker in ("0.npz", "1.npz"):
        with np.load(tmp_path / worker) as found:
            np.testing.assert_allclose(found["weight"], weight, rtol=1e-5)
            np.testing.assert_allclose(found["scale"], scale, rtol=1e-5)


@pytest.mark.slow
def test_a_failed_worker_ends_the_run() -> None:
    with pytest.raises(TrainingError, match=r"a worker failed.*no room left"):
        parallel.start(fail_in_a_worker, (), 2)


def wait_in_a_worker(folder: str) -> None:
    parallel.configure(2)
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(120)


@pytest.mark.slow
def test_workers_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    code = f"parallel.start(wait_in_a_worker, ({str(tmp_path)!r},), 2)"
    command = [sys.executable, "-c", f"from {__name__} import parallel, wait_in_a_worker; {code}"]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        assert within(100, lambda: len(list(tmp_path.iterdir())) == 2)
    finally:
        run.kill()
        run.wait()
    pids = [int(file.name) for file in tmp_path.iterdir()]
    assert within(20, lambda: not any(is_running(pid) for pid in pids))


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.1)
    return held


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_workers_share_a_batch(data: Dataset) -> None:
    whole = Batches(data, SETTINGS, 64)(3)
    halves = [Batches(data, replace(SETTINGS, workers=2), 64, worker)(3) for worker in (0, 1)]
    for field in ("pixels", "tokens"):
        both = np.concatenate([getattr(half, field) for half in halves])
        np.testing.assert_array_equal(both, getattr(whole, field))
    for half in halves:
        np.testing.assert_array_equal(half.subjects, whole.subjects)
    with pytest.raises(TrainingError, match="cannot be shared among 3"):
        Batches(data, replace(SETTINGS, workers=3), 64)


def test_the_first_steps_see_small_images(data: Dataset) -> None:
    batches = Batches(data, SETTINGS, 64)
    assert [batches(step).pixels.shape[-1] for step in range(6)] == [32, 32, 32, 64, 64, 64]
    with pytest.raises(TrainingError, match="small-share"):
        Batches(data, SETTINGS, 32)


def test_batches_depend_on_seed_and_step_alone(data: Dataset) -> None:
    one, other = (Batches(data, SETTINGS, 64) for _ in range(2))
    other(0)
    np.testing.assert_array_equal(one(3).pixels, other(3).pixels)
    assert not np.array_equal(one(3).pixels, one(4).pixels)


def test_export_gives_the_features_of_the_average(
    whole_run: checkpoint.Checkpoint, data: Dataset, tmp_path: Path
) -> None:
    seen = tokens_of(data.captions)
    state = openai_state(whole_run.average, seen, TINY.text.vocab_size)
    path = tmp_path / "tiny.safetensors"
    write_safetensors(state, path, {})
    exported = CLIP(TINY)
    exported.load_openai(read_state(path))  # strict
    trainer = train.MiniTrainer(TINY, SETTINGS, seen)
    trainer.clip.set_state_dict(whole_run.average)
    exported.eval(), trainer.clip.eval()
    batch = Batches(data, SETTINGS, 64)(5)
    with paddle.no_grad():
        for tower, inputs, of_training in (
            ("encode_image", batch.pixels, trainer._encode_image(paddle.to_tensor(batch.pixels))),
            ("encode_text", batch.tokens, trainer._encode_text(batch.tokens)),
        ):
            ours, theirs = getattr(exported, tower)(paddle.to_tensor(inputs)).numpy(), of_training.numpy()
            np.testing.assert_allclose(ours, theirs, atol=5e-3 * np.abs(theirs).max())
    table = state["token_embedding.weight"]
    assert table.dtype == np.float16 and table[seen].any(axis=1).all()
    assert not np.delete(table, seen, axis=0).any()
    with pytest.raises(ValueError, match="not in the training vocabulary"):
        rows_in(seen[:-1], seen)


# --- data ---------------------------------------------------------------------------------------------


def test_bad_images_are_skipped_with_a_report(tmp_path: Path) -> None:
    good = png(coloured(0))
    blank = png(np.full((50, 50, 3), 255, np.uint8))
    drawings = [
        drawing("red square", good), drawing("broken", good[:60]), drawing(" ", good),
        drawing("blank", blank),
        drawing("nazi flag", good),
    ]  # fmt: skip
    report = prepare(drawings, tmp_path / "data", workers=1)
    assert report["pictures"] == 1
    reasons = " ".join(report["skipped"])
    for part in ("broken: cannot be decoded", "no caption", "blank: shows nothing", "caption filtered"):
        assert part in reasons
    prepared = Dataset.open(tmp_path / "data")
    np.testing.assert_array_equal(prepared.images[0], coloured(0))
    with pytest.raises(TrainingError, match="exists"):
        prepare(drawings, tmp_path / "data", workers=1)


def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path) -> None:
    def interrupted():
        yield drawing("red square", png(coloured(0)))
        raise TrainingError("the download broke")

    with pytest.raises(TrainingError, match="the download broke"):
        prepare(interrupted(), tmp_path / "data", workers=1)
    assert not list(tmp_path.iterdir())
    with pytest.raises(TrainingError, match="prepare it"):
        Dataset.open(tmp_path / "data")


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no usable image"):
        prepare([drawing("broken", b"x")], tmp_path / "data", workers=1)


def test_too_few_images_for_a_batch_is_an_error(data: Dataset) -> None:
    with pytest.raises(TrainingError, match="fewer than a batch"):
        Batches(data, Settings(batch_size=64), 32)


def test_near_duplicates_share_a_group() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 96, 96, 4)).astype(np.uint8)
    images[..., 3] = 255
    blocks = images[:, ::12, ::12].repeat(12, 1).repeat(12, 2)
    almost = np.clip(blocks[0].astype(int) + 3, 0, 255).astype(np.uint8)
    hashes = [perceptual_hash(image) for image in (*blocks, almost)]
    assert near_duplicates(np.stack(hashes)) == [0, 1, 2, 0]


def test_splits_are_disjoint_and_fixed() -> None:
    captions = [
        caption(i, style=style) for i in range(400) for style in ("noto", "twemoji", "emojione", "clip-art")
    ]
    splits: tuple[Split, ...] = ("train", "style", "concept", "clip-art")
    rows = np.concatenate([rows_of(captions, split) for split in splits])
    assert sorted(rows) == list(range(len(captions)))
    assert all(split_of(item) == "style" for item in captions if item.style == "emojione")
    held_out = [item.concept for item in captions if split_of(item) == "concept"]
    assert 0.1 < len(held_out) / 400 < 0.2
    assert held_out[:4] == ["c5", "c6", "c7", "c12"]  # the same on any machine
    near = [caption(i, style="clip-art", near="c7") for i in range(50)]
    assert len({split_of(item) for item in near}) == 1


def test_sources_are_openly_licensed_and_leave_out_the_acceptance_style() -> None:
    assert {source.licence for source in SOURCES} <= LICENCES
    assert not [source for source in SOURCES if "fxemoji" in source.package or "openmoji" in source.package]


# --- captions and images ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("fuji apple", "apple"),
        ("dog face", "dog"),
        ("hot dog", "hot dog"),
        ("bird on a branch", "bird"),
        ("cat", "cat"),
    ],
)
def test_head_noun(name: str, head: str) -> None:
    assert head_noun(name) == head


def test_captions_are_filtered() -> None:
    assert not is_clean("Nazi flag") and not is_clean("a naked man") and not is_clean("hangman")
    assert is_clean("pool table") and is_clean("poodle") and is_clean("coat hanger") and is_clean("grape")


def test_captions_vary_and_agree_in_article() -> None:
    rng = np.random.default_rng(0)
    captions = {put_in_template(draw_subject("fuji apple", ("fruit",), rng), rng) for _ in range(300)}
    assert {"fuji apple", "apple", "an apple", "a fuji apple", "a picture of an apple", "fruit"} <= captions


def test_letters_and_directions_are_not_mirrored() -> None:
    assert not may_flip("right arrow") and not may_flip("flag: France") and may_flip("apple")


def test_augmented_images_keep_their_subject() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        image = augment(coloured(0), 64, True, rng)
        assert image.shape == (64, 64, 3)
        red, green, _ = image[28:36, 28:36].reshape(-1, 3).mean(axis=0)
        assert red > green + 60


def test_diagrams_are_the_same_every_time() -> None:
    first, again = list(draw_diagrams(9)), list(draw_diagrams(9))
    assert first == again
    assert {"diagram", "flow chart", "bar chart"} <= {name for name, _ in first}


def test_wilson_interval() -> None:
    low, high = Share(34, 63).interval()
    assert (round(low, 2), round(high, 2)) == (0.42, 0.66)


def test_the_vocabulary_has_every_caption() -> None:
    items = [Caption("O button (blood type)", ("“charge”", "÷"), "made", "CC0-1.0", "own", "c", 1.0)]
    vocabulary = tokens_of(items)
    rng = np.random.default_rng(0)
    for _ in range(300):
        subject = draw_subject(items[0].name, items[0].tags, rng)
        rows_in(vocabulary, tokenize([put_in_template(subject, rng)]))


# --- Muon ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (32, 32)])
def test_orthogonal_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    given = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    found = muon.orthogonal(paddle.to_tensor(given)).numpy()
    left, values, right = np.linalg.svd(given, full_matrices=False)
    found_values = np.linalg.svd(found, compute_uv=False)
    assert values.max() / values.min() > 2  # what was given is far from orthogonal
    assert found_values.min() > 0.6 and found_values.max() < 1.3
    # The directions stay: close to the nearest orthogonal matrix.
    assert np.sum(found * (left @ right)) / np.linalg.norm(found) / np.linalg.norm(left @ right) > 0.98


def test_muon_trains_matrices_and_convolutions() -> None:
    rng = np.random.default_rng(2)
    matrix, kernel = (paddle.create_parameter(shape, "float32") for shape in ([6, 4], [4, 3, 2, 2]))
    optimizer = muon.Muon({"matrix": matrix, "kernel": kernel}, weight_decay=0.1)
    for parameter in (matrix, kernel):
        before = parameter.numpy()
        gradient = rng.normal(size=before.shape).astype(np.float32)
        (parameter * paddle.to_tensor(gradient)).sum().backward()
    before = {name: p.numpy() for name, p in optimizer.parameters.items()}
    optimizer.step(0.1)
    for name, parameter in optimizer.parameters.items():
        step = before[name] * (1 - 0.1 * 0.1) - parameter.numpy()
        size = float(np.sqrt(np.mean(step**2)))
        assert 0.6 * 0.1 * 0.2 < size < 1.3 * 0.1 * 0.2  # about AdamW's, whatever the shape
        assert np.sum(step * parameter.grad.numpy()) > 0  # downhill


def test_preparation_without_the_renderer_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(TrainingError, match="resvg-py is not installed"):
        prepare(package_drawings(tmp_path), tmp_path / "data", workers=1)
    assert not (tmp_path / "data").exists()
