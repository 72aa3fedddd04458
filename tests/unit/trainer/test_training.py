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

from clip_common.config import ClipConfig, EfficientNetConfig, Stage, TextConfig
from clip_common.errors import TrainingError
from clip_common.models.clip import CLIP
from clip_common.text.tokenizer import tokenize
from clip_common.trainer import checkpoint, parallel
from clip_common.trainer.loss import contrastive_loss
from clip_common.weights.tensor_names import TOKEN_IDS, openai_name
from clip_common.weights.weights_file import read_openai, write_safetensors
from clip_common.zero_shot.scoring import l2_normalize
from recipes.clip_mini import train
from recipes.clip_mini.bag_of_words import fit_parts
from recipes.clip_mini.batches import Batch, Batches, Settings
from recipes.clip_mini.captions import TEMPLATES, draw_subject, head_noun, is_clean, plural
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
from recipes.clip_mini.features import Features
from recipes.clip_mini.imagenet import Classes, Space
from recipes.clip_mini.nouns import PARTLY, WHOLLY, Nouns, find_nouns, read_lookalikes
from recipes.clip_mini.sources import LICENCES, SOURCES, Drawing, Source
from recipes.clip_mini.splits import Split, rows_of, split_of
from recipes.clip_mini.subjects import subjects_of
from recipes.clip_mini.tower import tower_name
from recipes.clip_mini.vocabulary import rows_in, tokens_of, training_vocabulary
from recipes.clip_mini.wordnet import WordNet
from tests.support.killed import killed_after

TOWER = EfficientNetConfig((Stage(1, 3, 2, 2, 8),), branch=12, stem=4, features=20)
TINY = ClipConfig("tiny", 16, 64, TOWER, TextConfig(64, 1))
SETTINGS = Settings(steps=24, batch_size=16, learning_rate=1e-2, warm_up=2, nouns=8, photographs=8)
COLOURS = ("red", "green", "blue", "black")


def caption(number: int, **changes: str) -> Caption:
    fields = {
        "name": f"{COLOURS[number % 4]} square", "source": "made", "licence": "CC0-1.0", "style": "own",
        "concept": f"c{number}", "near": f"c{number}",
    }  # fmt: skip
    return Caption(**{**fields, **changes}, tags=("shape",), weight=1.0)


def coloured(number: int) -> np.ndarray:
    image = np.zeros((192, 192, 4), np.uint8)
    image[40:152, 40:152, 3] = 255
    if number % 4 < 3:
        image[40:152, 40:152, number % 4] = 255
    return image


@pytest.fixture(scope="module")
def space() -> Space:
    random = np.random.default_rng(3)
    weight, bias = random.normal(size=(24, 20)), random.normal(size=24)
    return Space.of(weight.astype(np.float32), bias.astype(np.float32), TINY.embed_dim)


@pytest.fixture(scope="module")
def features() -> Features:
    random = np.random.default_rng(4)
    drawings, photographs = (random.uniform(0, 2, (count, 20)).astype(np.float16) for count in (40, 9))
    return Features([caption(i) for i in range(40)], drawings, photographs)


@pytest.fixture(scope="module")
def nouns(space: Space) -> Nouns:
    closeness = np.array([WHOLLY, WHOLLY, PARTLY], np.float32)
    return Nouns(["cat", "dog", "giraffe"], space.directions[:3], closeness, np.array([2.0, 2.0, 1.0]))


@pytest.fixture(scope="module")
def batches(features: Features, nouns: Nouns, space: Space) -> Batches:
    return Batches(features, nouns, space, SETTINGS)


@pytest.fixture(scope="module")
def vocabulary(batches: Batches) -> np.ndarray:
    return training_vocabulary(batches.captions, batches.nouns.names)


@pytest.fixture(scope="module")
def whole_run(batches: Batches, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Checkpoint:
    return run(batches, SETTINGS, tmp_path_factory.mktemp("run"))


def trainer_of(batches: Batches, settings: Settings = SETTINGS) -> train.MiniTrainer:
    vocabulary = training_vocabulary(batches.captions, batches.nouns.names)
    subjects = subjects_of(batches.features, batches.space)
    parts = fit_parts(batches.nouns, subjects, vocabulary, TINY.embed_dim)
    return train.MiniTrainer(settings, vocabulary, batches.space, parts, TOWER.branch)


def run(batches: Batches, settings: Settings, output: Path, **options: Any) -> checkpoint.Checkpoint:
    train.run.train(trainer_of(batches, settings), batches, output, **options)
    return checkpoint.load(output / "checkpoint.npz")


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def drawing(name: str, content: bytes) -> Drawing:
    return Drawing(name, (), name, Source("made", "1", "CC0-1.0", "us", "own"), content)


# --- training -----------------------------------------------------------------------------------------


def test_loss_falls(whole_run: checkpoint.Checkpoint) -> None:
    assert whole_run.step == 24
    assert whole_run.curve[-6:, 0].mean() < whole_run.curve[:6, 0].mean() - 0.5


@pytest.mark.slow
def test_a_killed_run_resumes_on_the_same_curve(
    batches: Batches, whole_run: checkpoint.Checkpoint, tmp_path: Path
) -> None:
    with killed_after(train.MiniTrainer, 4):
        run(batches, SETTINGS, tmp_path, save_every=3)
    resumed = run(batches, SETTINGS, tmp_path, resume=True, save_every=3)
    np.testing.assert_allclose(resumed.curve[:, 0], whole_run.curve[:, 0], rtol=1e-5)
    for name, value in whole_run.average.items():
        np.testing.assert_allclose(resumed.average[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    with pytest.raises(TrainingError, match="other settings"):
        run(batches, replace(SETTINGS, steps=25), tmp_path, resume=True)


def test_a_half_written_checkpoint_is_refused(whole_run: checkpoint.Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, whole_run)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainingError, match="not a complete checkpoint"):
        checkpoint.load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(TrainingError, match=r"not a complete checkpoint: it holds one array without a name"):
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
    with pytest.raises(TrainingError, match="the disk is full: free some space"):
        checkpoint.save(path, whole_run)
    assert checkpoint.load(path).step == 24
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.npz"]


def test_positives_share_a_subject_or_a_concept() -> None:
    none = np.zeros(0)
    batch = Batch(none, none, np.array([0, 0, 1, 2]), np.array([5, 6, 6, 7]), none, none, none, none)
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


def test_batches_depend_on_seed_and_step_alone(features: Features, nouns: Nouns, space: Space) -> None:
    one, other = (Batches(features, nouns, space, SETTINGS) for _ in range(2))
    other(0)
    for name in ("drawings", "tokens", "directions", "photographs"):
        np.testing.assert_array_equal(getattr(one(3), name), getattr(other(3), name))
    assert not np.array_equal(one(3).drawings, one(4).drawings)


def test_photographs_keep_the_classifiers_answer(batches: Batches) -> None:
    batch = batches(2)
    np.testing.assert_allclose(batch.classes.sum(axis=1), 1, rtol=1e-5)
    logits = batch.photographs @ batches.space.weight.T + batches.space.bias
    np.testing.assert_array_equal(batch.classes.argmax(axis=1), logits.argmax(axis=1))
    assert batch.photographs.min() >= 0 and batch.photographs.max() <= 6


def test_the_projection_stays_and_the_branch_begins_with_nothing(
    batches: Batches, whole_run: checkpoint.Checkpoint
) -> None:
    head = trainer_of(batches).model.head
    given = batches(0).photographs
    expected = given @ batches.space.projection
    np.testing.assert_allclose(head(paddle.to_tensor(given)).numpy(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(whole_run.model["head.projection"], batches.space.projection)
    assert np.abs(whole_run.model["head.c_proj.weight"]).max() > 0


def test_export_gives_the_features_of_the_average(
    whole_run: checkpoint.Checkpoint, batches: Batches, vocabulary: np.ndarray, tmp_path: Path
) -> None:
    whole = {openai_name(name): tensor.numpy() for name, tensor in CLIP(TINY).state_dict().items()}
    tower = {name: whole[name] for name in whole if name.startswith("visual.") and ".head." not in name}
    state = openai_state(whole_run.average, tower, vocabulary, TINY)
    assert state["token_embedding.weight"].dtype == np.float16 and len(state[TOKEN_IDS]) == len(vocabulary)
    path = tmp_path / "tiny.safetensors"
    write_safetensors(state, path, {})
    read = read_openai(path)
    table = read["token_embedding.weight"]
    assert not np.delete(table, vocabulary, axis=0).any()
    exported = CLIP(TINY)
    exported.load_openai(read)  # strict
    trainer = trainer_of(batches)
    trainer._set_weights(whole_run.average)
    exported.eval()
    batch = batches(5)
    drawings = paddle.to_tensor(batch.drawings)
    templates = tokenize(["a photo of a red square.", "an icon of a red square", "red square"])
    with paddle.no_grad():
        for ours, theirs, close in (
            (exported.visual.head(drawings), trainer.model.head(drawings), 5e-3),
            (exported.encode_text(paddle.to_tensor(batch.tokens)), trainer.encode_text(batch.tokens), 3e-2),
            (exported.encode_text(paddle.to_tensor(templates)), trainer.encode_text(templates), 3e-2),
        ):
            np.testing.assert_allclose(l2_normalize(ours.numpy()), l2_normalize(theirs.numpy()), atol=close)
    with pytest.raises(ValueError, match="not in the training vocabulary"):
        rows_in(vocabulary[:-1], vocabulary)


# --- nouns --------------------------------------------------------------------------------------------


def line(offset: int, words: str, parent: int | None = None) -> str:
    names = words.split()
    pointers = f"001 @ {parent:08d} n 0000" if parent else "000"
    return (
        f"{offset:08d} 05 n {len(names):02x} {' '.join(f'{name} 0' for name in names)} {pointers} | a thing"
    )


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    synsets = [(1, "animal", None), (2, "feline cat", 1), (3, "tabby", 2), (4, "tiger", 2), (5, "ocelot", 2)]
    data = ["  1 a licence", *(line(*synset) for synset in synsets)]
    (tmp_path / "data.noun").write_text("\n".join(data) + "\n")
    index = [f"{name} n 1 0 1 1 {offset:08d}" for offset, words, _ in synsets for name in words.split()]
    (tmp_path / "index.noun").write_text("  1 a licence\n" + "\n".join(index) + "\n")
    return WordNet(tmp_path)


def test_nouns_lie_where_their_classes_do(wordnet: WordNet) -> None:
    directions = np.eye(2, 4, dtype=np.float32)
    classes = Classes([3, 4], [("tabby cat",), ("tiger",)])
    nouns = find_nouns(wordnet, classes, directions, {"lynx": ["tiger"]})
    place = dict(zip(nouns.names, zip(nouns.directions, nouns.closeness, strict=True), strict=True))
    both = l2_normalize(directions.sum(axis=0))
    for name, direction, closeness in (
        ("tabby cat", directions[0], WHOLLY), ("tiger", directions[1], WHOLLY),
        ("tabby", directions[0], WHOLLY), ("cat", both, WHOLLY), ("animal", both, WHOLLY),
        ("ocelot", both, PARTLY), ("lynx", directions[1], PARTLY),
    ):  # fmt: skip
        np.testing.assert_allclose(place[name][0], direction, rtol=1e-6, err_msg=name)
        assert place[name][1] == pytest.approx(closeness), name
    with pytest.raises(TrainingError, match="lookalikes of 'lynx': unicorn have no classes"):
        find_nouns(wordnet, classes, directions, {"lynx": ["unicorn"]})


def test_lookalikes_are_read() -> None:
    lookalikes = read_lookalikes()
    assert "zebra" in lookalikes["giraffe"]
    assert all(name == name.lower() for name in lookalikes)


def test_the_space_ranks_classes_as_the_classifier_does(space: Space) -> None:
    features = 3 * space.weight  # each is its own class, clearly
    cosines = l2_normalize(features @ space.projection) @ space.directions.T
    np.testing.assert_array_equal(cosines.argmax(axis=1), np.arange(len(space.weight)))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("_conv_stem.weight", "visual.conv_stem.weight"),
        ("_bn1.running_var", "visual.bn_head.running_var"),
        ("_blocks.12._bn1.bias", "visual.blocks.12.bn_depthwise.bias"),
        ("_fc.weight", None),
        ("_blocks.0._bn2.num_batches_tracked", None),
        ("_bn0.num_batches_tracked", None),
    ],
)
def test_names_of_the_towers_package(theirs: str, ours: str | None) -> None:
    assert tower_name(theirs) == ours


@pytest.mark.parametrize(
    ("one", "many"), [("dog", "dogs"), ("box", "boxes"), ("berry", "berries"), ("key", "keys")]
)
def test_plurals(one: str, many: str) -> None:
    assert plural(one) == many


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


def test_too_few_images_for_a_batch_is_an_error(features: Features, nouns: Nouns, space: Space) -> None:
    with pytest.raises(TrainingError, match="fewer than a batch"):
        Batches(features, nouns, space, replace(SETTINGS, batch_size=64))


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


def test_an_image_is_called_its_name_its_head_noun_or_a_tag() -> None:
    rng = np.random.default_rng(0)
    captions = [draw_subject("fuji apple", ("Fruit",), rng) for _ in range(300)]
    assert set(captions) == {"fuji apple", "apple", "fruit"}
    assert captions.count("fuji apple") > captions.count("apple") > captions.count("fruit")
    assert {draw_subject("apple", (), rng) for _ in range(20)} == {"apple"}


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
        rows_in(vocabulary, tokenize([template.replace("{}", subject) for template in TEMPLATES]))


def test_preparation_without_the_renderer_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(TrainingError, match="resvg-py is not installed"):
        prepare(package_drawings(tmp_path), tmp_path / "data", workers=1)
    assert not (tmp_path / "data").exists()
