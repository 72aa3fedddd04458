"""The trainer, on a tiny model and pictures made here."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from clip_common.config import ClipConfig, ResNetConfig, TextConfig
from clip_common.formats import read_state, write_safetensors
from clip_common.model import CLIP
from training import checkpoint, train
from training.augment import augment
from training.captions import draw_caption, head_noun, is_clean, may_flip
from training.data import Caption, Dataset, near_duplicates, perceptual_hash, prepare
from training.diagrams import draw_diagrams
from training.errors import TrainingError
from training.evaluate import Share
from training.export import openai_state, tokens_of
from training.sources import LICENCES, SOURCES, Drawing, Source
from training.splits import rows_of, split_of

TINY = ClipConfig("tiny", 32, 32, ResNetConfig((1, 1, 1, 1), 8), TextConfig(64, 1, 77, 49408))
SETTINGS = train.Settings(steps=6, batch_size=16, warm_up=2)
COLOURS = ("red", "green", "blue", "black")


def caption(number: int, **changes: str) -> Caption:
    fields = {
        "name": f"{COLOURS[number % 4]} square", "source": "made", "licence": "CC0-1.0", "style": "own",
        "concept": f"c{number}", "near": f"c{number}",
    }  # fmt: skip
    return Caption(**{**fields, **changes}, tags=("shape",), weight=1.0)


def coloured(number: int) -> np.ndarray:
    picture = np.zeros((96, 96, 4), np.uint8)
    picture[20:76, 20:76, 3] = 255
    if number % 4 < 3:
        picture[20:76, 20:76, number % 4] = 255
    return picture


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Dataset(np.stack([coloured(i) for i in range(40)]), [caption(i) for i in range(40)])


@pytest.fixture(scope="module")
def whole_run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Checkpoint:
    return train.train(data, TINY, SETTINGS, tmp_path_factory.mktemp("run"))


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
    step = train.Trainer.step

    def killed_at_the_fifth(self: train.Trainer, batch: train.Batch) -> float:
        if self.done == 4:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(train.Trainer, "step", killed_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        train.train(data, TINY, SETTINGS, tmp_path, save_every=3)
    monkeypatch.undo()
    resumed = train.train(data, TINY, SETTINGS, tmp_path, resume=True, save_every=3)
    np.testing.assert_allclose(resumed.curve[:, 0], whole_run.curve[:, 0], rtol=1e-5)
    for name, value in whole_run.average.items():
        np.testing.assert_allclose(resumed.average[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    with pytest.raises(TrainingError, match="other settings"):
        train.train(data, TINY, train.Settings(steps=7, batch_size=16, warm_up=2), tmp_path, resume=True)


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


def test_same_captions_are_positives_of_each_other() -> None:
    features = paddle.eye(2)[paddle.to_tensor([0, 0, 1])]
    scale = paddle.to_tensor(5.0)
    right = train.contrastive_loss(features, features, scale, paddle.to_tensor([0, 0, 1]))
    apart = train.contrastive_loss(features, features, scale, paddle.to_tensor([0, 1, 2]))
    assert float(right) == pytest.approx(np.log(2) * 2 / 3, abs=1e-3)
    assert float(apart) == pytest.approx(np.log(2) * 2 / 3, abs=1e-3)
    wrong = train.contrastive_loss(
        features, features[paddle.to_tensor([2, 1, 0])], scale, paddle.to_tensor([0, 0, 1])
    )
    assert float(wrong) > 10


def test_batches_depend_on_seed_and_step_alone(data: Dataset) -> None:
    one, other = (train.Batches(data, SETTINGS, 32) for _ in range(2))
    other(0)
    np.testing.assert_array_equal(one(3).pixels, other(3).pixels)
    assert not np.array_equal(one(3).pixels, one(4).pixels)


def test_export_gives_the_features_of_the_average(
    whole_run: checkpoint.Checkpoint, data: Dataset, tmp_path: Path
) -> None:
    seen = tokens_of(data.captions)
    state = openai_state(whole_run.average, seen)
    path = tmp_path / "tiny.safetensors"
    write_safetensors(state, path, {})
    exported, trained = CLIP(TINY), CLIP(TINY)
    exported.load_openai(read_state(path))  # strict
    trained.set_state_dict(whole_run.average)
    exported.eval(), trained.eval()
    batch = train.Batches(data, SETTINGS, 32)(0)
    with paddle.no_grad():
        for tower, inputs in (("encode_image", batch.pixels), ("encode_text", batch.tokens)):
            ours, theirs = (
                getattr(model, tower)(paddle.to_tensor(inputs)).numpy() for model in (exported, trained)
            )
            np.testing.assert_allclose(ours, theirs, atol=5e-3 * np.abs(theirs).max())
    table = state["token_embedding.weight"]
    assert table.dtype == np.float16 and table[seen].any(axis=1).all()
    assert not np.delete(table, seen, axis=0).any()


# --- data ---------------------------------------------------------------------------------------------


def test_bad_pictures_are_skipped_with_a_report(tmp_path: Path) -> None:
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
    np.testing.assert_array_equal(prepared.pictures[0], coloured(0))
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
    with pytest.raises(TrainingError, match="no usable picture"):
        prepare([drawing("broken", b"x")], tmp_path / "data", workers=1)


def test_too_few_pictures_for_a_batch_is_an_error(data: Dataset) -> None:
    with pytest.raises(TrainingError, match="fewer than a batch"):
        train.Batches(data, train.Settings(batch_size=64), 32)


def test_near_duplicates_share_a_group() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 96, 96, 4)).astype(np.uint8)
    pictures[..., 3] = 255
    blocks = pictures[:, ::12, ::12].repeat(12, 1).repeat(12, 2)
    almost = np.clip(blocks[0].astype(int) + 3, 0, 255).astype(np.uint8)
    hashes = [perceptual_hash(picture) for picture in (*blocks, almost)]
    assert near_duplicates(np.stack(hashes)) == [0, 1, 2, 0]


def test_splits_are_disjoint_and_fixed() -> None:
    captions = [
        caption(i, style=style) for i in range(400) for style in ("noto", "twemoji", "emojione", "clip-art")
    ]
    splits = ("train", "style", "concept", "clip-art")
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


# --- captions and pictures ----------------------------------------------------------------------------


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
    captions = {draw_caption("fuji apple", ("fruit",), rng) for _ in range(300)}
    assert {"fuji apple", "apple", "an apple", "a fuji apple", "a picture of an apple", "fruit"} <= captions


def test_letters_and_directions_are_not_mirrored() -> None:
    assert not may_flip("right arrow") and not may_flip("flag: France") and may_flip("apple")


def test_augmented_pictures_keep_their_subject() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        picture = augment(coloured(0), 64, True, rng)
        assert picture.shape == (64, 64, 3)
        red, green, _ = picture[28:36, 28:36].reshape(-1, 3).mean(axis=0)
        assert red > green + 60


def test_diagrams_are_the_same_every_time() -> None:
    first, again = list(draw_diagrams(9)), list(draw_diagrams(9))
    assert first == again
    assert {"diagram", "flow chart", "bar chart"} <= {name for name, _ in first}


def test_wilson_interval() -> None:
    low, high = Share(34, 63).interval()
    assert (round(low, 2), round(high, 2)) == (0.42, 0.66)
