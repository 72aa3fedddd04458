"""Near-duplicates: as brute force finds them, whatever the blocks; and what `clip-hub duplicates` says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_common.cli.main import main
from clip_common.embedding.items import Item
from clip_common.embedding.origin import Origin
from clip_common.embedding.store import Row, Store
from clip_common.errors import RequestError
from clip_common.search import duplicates
from clip_common.search.duplicates import Group, estimated_seconds, find_groups, pairs_of
from clip_common.search.stored_images import StoredImage, StoredImages, read_images
from clip_common.zero_shot.scoring import l2_normalize
from tests.support.stores import ORIGIN


def stored(embeddings: np.ndarray, sizes: Sequence[int] | None = None) -> StoredImages:
    """Images with given embeddings; the first is the largest unless told otherwise."""
    sizes = sizes or range(len(embeddings), 0, -1)
    images = [StoredImage(f"{i:04d}.jpg", "/p", size, 1, str(i)) for i, size in enumerate(sizes)]
    return StoredImages(ORIGIN, images, embeddings.astype(np.float32), 0, 0, 0)


def by_brute_force(embeddings: np.ndarray, threshold: float) -> dict[int, set[int]]:
    """What the definition says, of images from the largest to the smallest, one by one."""
    kept: list[int] = []
    groups: dict[int, set[int]] = {}
    for i, one in enumerate(embeddings):
        cosines = embeddings[kept] @ one
        if len(kept) and cosines.max() >= threshold:
            groups.setdefault(kept[int(cosines.argmax())], set()).add(i)
        else:
            kept.append(i)
    return groups


def as_numbers(groups: list[Group]) -> dict[int, set[int]]:
    return {int(group.keep.path[:4]): {int(d.image.path[:4]) for d in group.duplicates} for group in groups}


def families(count: int, width: int, noise: float, seed: int) -> np.ndarray:
    """Embeddings of unit length around fewer centres, which have a direction in common as CLIP's have."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count // 3, width)) + 1
    return l2_normalize(
        centres[rng.integers(0, len(centres), count)] + noise * rng.normal(size=(count, width))
    )


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("width", [24, 64])
@pytest.mark.parametrize("block", [7, 64, 4096])
@pytest.mark.parametrize("many", [0.0, 1 / 128, 1.0])
def test_it_finds_what_brute_force_finds(
    monkeypatch: pytest.MonkeyPatch, threshold: float, width: int, block: int, many: float
) -> None:
    monkeypatch.setattr(duplicates, "_ROWS", block)
    monkeypatch.setattr(duplicates, "_COLUMNS", 2 * block)
    monkeypatch.setattr(duplicates, "_MANY", many)
    embeddings = families(150, width, 0.25, seed=1)
    expected = by_brute_force(embeddings, threshold)
    assert expected
    seen: list[int] = []
    assert as_numbers(find_groups(stored(embeddings), threshold, seen.append)) == expected
    assert sum(seen) == pairs_of(150)


def test_the_sketch_is_never_below_a_cosine() -> None:
    for noise in (0.0, 0.01, 1.0):
        embeddings = families(200, 256, noise, seed=2).astype(np.float32)
        sketch = duplicates._sketch(embeddings)
        assert sketch.shape == (200, 33)
        assert (sketch @ sketch.T - embeddings @ embeddings.T).min() > -duplicates._ROUNDING_OF_BOUNDS


def test_a_chain_of_small_steps_does_not_join_what_is_far_apart() -> None:
    angles = np.radians([0, 15, 30, 45, 60, 75])  # each 0.966 from its neighbours
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    groups = find_groups(stored(chain), 0.95)
    assert as_numbers(groups) == {0: {1}, 2: {3}, 4: {5}}
    assert [group.duplicates[0].cosine for group in groups] == pytest.approx([np.cos(np.radians(15))] * 3)


def test_the_largest_is_kept_then_the_first_by_path() -> None:
    alike = l2_normalize(np.array([[1, 0, 0], [1, 0.1, 0], [1, 0, 0.2], [0, 1, 0]]))
    (group,) = find_groups(stored(alike, [5, 9, 9, 100]), 0.9)
    assert group.keep.path == "0001.jpg"
    assert [one.image.path for one in group.duplicates] == ["0000.jpg", "0002.jpg"]  # the nearest first


def row(path: str, vector: Sequence[float], sha256: str | None = None, side: int | None = 10) -> Row:
    return Row(Item(path, "stamp"), np.array(vector, np.float32), side, side, sha256)


def write_store(folder: Path, rows: list[Row], dtype: str = "float32", root: str = "/photos") -> Path:
    origin = dataclasses.replace(ORIGIN, embed_dim=len(rows[0].vector), dtype=dtype)
    store = Store(folder)
    folder.mkdir()
    store.write_root(Path(root))
    for number, one in enumerate(rows):
        store.write_part(number, [one], origin)
    return folder


def test_equal_files_are_marked_and_several_stores_taken_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_store(
        tmp_path / "a",
        [row("x.jpg", [1, 0], "one", 20), row("y.jpg", [1, 0], "one"), row("z.jpg", [0, 1], "other")],
    )
    second = write_store(
        tmp_path / "b",
        [
            row("x.jpg", [1, 0], "one", 20),
            row("w.jpg", [0.999, 0.04], "third"),
            row("words", [0, 1], None, None),
        ],
        "float16",
    )
    assert main(["duplicates", str(first), str(second), "--format", "json"]) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert (answer["images"], answer["threshold"]) == (4, 0.95)
    (group,) = answer["groups"]
    assert group["keep"] == {"path": "x.jpg", "root": "/photos", "width": 20, "height": 20}
    assert [(one["path"], one["exact"]) for one in group["duplicates"]] == [("y.jpg", True), ("w.jpg", False)]
    assert group["duplicates"][1]["cosine"] == pytest.approx(0.9992, abs=1e-3)
    assert (
        "1 text left out" in said.err and "1 image left out: an earlier store has the same file" in said.err
    )
    assert main(["duplicates", str(first), str(second)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["keep", "20", "x", "20", "x.jpg"]
    assert lines[1].endswith("y.jpg  (the same file)") and lines[2].endswith("w.jpg")
    assert lines[-1] == "2 of 4 images are duplicates of one that is kept; groups: 1"


def test_a_threshold_of_one_finds_equal_files(tmp_path: Path) -> None:
    vector = l2_normalize(np.random.default_rng(0).normal(size=512)).tolist()
    folder = write_store(tmp_path / "v", [row(f"{i}.jpg", vector, "same") for i in range(3)], "float16")
    (group,) = find_groups(read_images([folder]), 1.0)
    assert len(group.duplicates) == 2
    assert max(one.cosine for one in group.duplicates) <= 1


def test_what_has_no_direction_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row("a.jpg", [1, 0]), row("b.jpg", [np.nan, 0]), row("c.jpg", [0, 0]), row("d.jpg", [1, 0])]
    folder = write_store(tmp_path / "v", rows)
    assert main(["duplicates", str(folder)]) == 1
    said = capsys.readouterr()
    assert "1 of 2 images is a duplicate" in said.out
    assert said.err.startswith("2 images left out: ")


def test_stores_that_cannot_be_compared(tmp_path: Path) -> None:
    first = write_store(tmp_path / "a", [row("x.jpg", [1, 0])])
    with pytest.raises(RequestError, match="nowhere holds no embeddings"):
        read_images([first, tmp_path / "nowhere"])
    other = Store(tmp_path / "other")
    other.write_part(0, [row("y.jpg", [1, 0])], Origin("clip_mini", "1" * 64, 2))
    with pytest.raises(RequestError, match="other holds embeddings of clip_mini"):
        read_images([first, other.folder])
    words = write_store(tmp_path / "words", [row("a dog", [1, 0], None, None)])
    with pytest.raises(RequestError, match="no embeddings of images"):
        read_images([words])


def test_the_sheet_and_a_large_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, colour in (("a", "red"), ("b", "green")):
        Image.new("RGB", (30, 20), colour).save(tmp_path / f"{name}.png")
    rows = [row("a.png", [1, 0]), row("b.png", [1, 0.1]), row("gone.png", [1, 0.2])]
    folder = write_store(tmp_path / "v", rows, root=str(tmp_path))
    monkeypatch.setattr("clip_common.cli.duplicates._LARGE", 3)
    assert main(["duplicates", str(folder), "--output_dir", str(tmp_path / "sheet")]) == 0
    assert "3 images are 3 pairs: about 0 minutes" in capsys.readouterr().err
    with Image.open(tmp_path / "sheet" / "duplicates.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24) or []}
    assert {(255, 0, 0), (0, 128, 0)} <= colours
    assert estimated_seconds(read_images([folder])) > 0
