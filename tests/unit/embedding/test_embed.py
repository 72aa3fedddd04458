"""`embed`: every kind of source, each image exactly once whatever happens."""

from __future__ import annotations

import io
import os
import struct
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Semaphore
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clip_common.config import pretrained
from clip_common.embedding.embed import embed
from clip_common.embedding.items import Item
from clip_common.embedding.parts import Job
from clip_common.embedding.sources import items_of
from clip_common.embedding.store import Store
from clip_common.errors import RequestError
from clip_common.predictor import Predictor, PredictorOptions
from tests.support.broken_images import PALETTE_THEN_COLOURS, with_exif
from tests.support.killed import embedded_through_kills
from tests.support.locked import lock_folder
from tests.support.quick_features import quick_features
from tests.support.stores import JOB, contents, run, write_images


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "pictures")


@pytest.fixture
def real_features() -> None:
    """Asked for by tests that compare with what the model gives."""


@pytest.fixture(autouse=True)
def features(request: pytest.FixtureRequest) -> Iterator[None]:
    """Of the other tests, which are about the run, the features cost nothing."""
    with pytest.MonkeyPatch.context() as patch:
        if "real_features" not in request.fixturenames:
            patch.setattr(Predictor, "encode_image", quick_features)
        yield


def test_an_image_that_breaks_costs_itself_alone(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (8, 9), "red").save(folder / "a.png")
    Image.new("RGB", (30, 20), "blue").save(folder / "b.tga")
    (folder / "c.png").write_bytes(PALETTE_THEN_COLOURS)
    (folder / "d.png").write_bytes(with_exif(b"Exif\0\0garbage!"))
    job = replace(JOB, options=replace(JOB.options, exif_rotation=True))
    report = run(folder, tmp_path / "v", job=job)
    assert (report.embedded, report.failed) == (2, 2)
    errors = {Path(path).name: reason for path, (_, reason) in Store(tmp_path / "v").errors().items()}
    assert set(errors) == {"c.png", "d.png"}
    assert "EXIF is damaged" in errors["d.png"]
    (table,) = Store(tmp_path / "v").tables()
    assert table["width"].to_pylist() == [8, 30]
    assert table["height"].to_pylist() == [9, 20]


def test_vectors_are_those_of_the_module(real_features: None, images: Path, tmp_path: Path) -> None:
    report = run(images, tmp_path / "out")
    assert (report.embedded, report.failed, report.known) == (20, 1, 0)
    found = contents(tmp_path / "out")
    paths = sorted(str(path) for path in images.rglob("*") if path.suffix in (".png", ".jpg", ".webp"))
    assert sorted(found) == [path for path in paths if "broken" not in path]
    expected = Predictor(pretrained("clip_mini")).embed(paths=sorted(found))["images"]
    np.testing.assert_allclose(np.stack([found[path] for path in sorted(found)]), expected, atol=1e-5)
    table = pq.read_table(tmp_path / "out" / Store(tmp_path / "out").parts()[0])
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 512)
    row = table.to_pylist()[0]
    with Image.open(row["path"]) as image:
        assert (row["width"], row["height"]) == image.size
    errors = pq.read_table(tmp_path / "out" / "errors.parquet").to_pylist()
    assert [Path(row["path"]).name for row in errors] == ["broken.png"]
    assert "not an image" in errors[0]["error"]


def test_only_what_is_new_or_changed(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(images, output)
    before = contents(output)
    again = run(images, output)
    assert (again.embedded, again.known, again.failed_before) == (0, 20, 1)
    changed, removed = images / "0" / "00.png", images / "1" / "01.jpg"
    Image.new("RGB", (50, 50), "red").save(changed)
    Image.new("RGB", (50, 50), "blue").save(images / "new.png")
    Image.new("RGB", (50, 50), "green").save(images / "1" / "broken.png")
    removed.unlink()
    report = run(images, output)
    assert (report.embedded, report.known) == (3, 18)
    after = contents(output)
    assert not (output / "errors.parquet").exists()
    assert after.keys() - before.keys() == {str(images / "new.png"), str(images / "1" / "broken.png")}
    assert np.abs(after[str(changed)] - before[str(changed)]).max() > 0.01
    assert str(removed) in after
    assert run(images, output, prune=True).removed == 1
    assert contents(output).keys() == after.keys() - {str(removed)}


def test_the_next_part_is_made_while_one_is_written(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a core waits for the disk, and then another for the first images of the next part."""
    encoded, waited = Semaphore(0), []
    encode, write = Predictor.encode_image, Store.write_part

    def encode_image(*given: Any) -> np.ndarray:
        encoded.release()
        return encode(*given)

    def write_part(store: Store, number: int, *given: Any) -> None:
        """Of seven images a part has two batches of at most four; the last part, six, has none after it."""
        if number == 0:
            waited.append(all(encoded.acquire(timeout=60) for _ in range(3)))
        write(store, number, *given)

    monkeypatch.setattr(Predictor, "encode_image", encode_image)
    monkeypatch.setattr(Store, "write_part", write_part)
    assert run(images, tmp_path / "out").embedded == 20
    assert waited == [True]
    assert len(contents(tmp_path / "out")) == 20 and len(Store(tmp_path / "out").parts()) == 3


def test_a_part_that_cannot_be_written_ends_the_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store.write_part

    def write_part(store: Store, number: int, *given: Any) -> None:
        if number == 1:
            raise RequestError("the disk is full")
        write(store, number, *given)

    monkeypatch.setattr(Store, "write_part", write_part)
    with pytest.raises(RequestError, match="the disk is full"):
        run(images, tmp_path / "out")
    assert len(Store(tmp_path / "out").parts()) == 1
    monkeypatch.undo()
    assert run(images, tmp_path / "out").embedded == 20 - 7


def test_an_error_leaves_no_writer_behind(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_errors(store: Store, errors: dict[str, tuple[str, str]]) -> None:
        if errors:  # the broken image is in the second of three parts
            raise RequestError("the disk is full")

    monkeypatch.setattr(Store, "write_errors", write_errors)
    with pytest.raises(RequestError, match="the disk is full") as error:
        run(images, tmp_path / "out")
    assert error.tb is not None  # it holds what the run left
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("clip-write")]


def test_an_error_leaves_unread_what_nobody_wants(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends only when its threads have read what they were given: hundreds of addresses, say."""
    begun: list[str] = []
    go_on, read = threading.Event(), Item.read

    def read_slowly(item: Item) -> bytes:
        begun.append(item.path)
        if len(begun) > JOB.batch_size:
            assert go_on.wait(60)
        return read(item)

    def encode_image(*_: Any) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(Item, "read", read_slowly)
    monkeypatch.setattr(Predictor, "encode_image", encode_image)
    with pytest.raises(MemoryError) as error:
        run(images, tmp_path / "out")
    assert error.tb is not None  # it holds what the run left
    go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("clip-prepare"):
            thread.join(60)
    assert len(begun) <= 2 * JOB.batch_size


@pytest.mark.slow
def test_killed_at_any_moment_each_image_is_there_once(tmp_path: Path) -> None:
    folder, output = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    for number in range(600):
        Image.new("RGB", (32, 32), (number % 256, number // 256, 77)).save(folder / f"{number:04d}.png")
    command = [sys.executable, "-m", "clip_common", "embed", str(folder), "--output", str(output)]
    command += ["--part_size", "20", "--batch_size", "4"]
    embedded_through_kills(command, output, part=20, most=3, look_every=0.005, wait_most=0.05)
    assert len(contents(output)) == 600
    assert not list(output.glob(".part*"))  # what the killed runs left is swept up


def test_every_kind_of_source(real_features: None, images: Path, tmp_path: Path) -> None:
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as tar:
        for number, word in enumerate(("red", "blue")):
            file = io.BytesIO()
            Image.new("RGB", (40, 40), word).save(file, "PNG")
            for name, content in ((f"{number}.png", file.getvalue()), (f"{number}.txt", word.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    table = tmp_path / "table.csv"
    table.write_text("path,caption\npictures/0/00.png,blocks\npictures/missing.png,nothing\n")
    texts = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"caption": ["a dog", "word " * 200]}), texts)
    listed = tmp_path / "list.txt"
    listed.write_text("pictures/0/03.png\n\n")
    sources = [shard, table, texts, listed, f"{images}/2/*.webp", images / "0" / "00.png"]
    report = run(sources, tmp_path / "out")
    found = contents(tmp_path / "out")
    webp = sorted(str(path) for path in (images / "2").glob("*.webp"))
    assert set(found) == {
        f"{shard}::0.png", f"{shard}::1.png", str(images / "0" / "00.png"), f"{texts}#0",
        str(images / "0" / "03.png"), *webp,
    }  # fmt: skip
    assert report.failed == 2
    reasons = {Path(p).name: reason for p, (_, reason) in Store(tmp_path / "out").errors().items()}
    assert "No such file" in reasons["missing.png"]
    assert "the limit is 77" in reasons["texts.parquet#1"]
    predictor = Predictor(pretrained("clip_mini"))
    red = predictor.embed(images=[Image.new("RGB", (40, 40), "red")])["images"][0]
    np.testing.assert_allclose(found[f"{shard}::0.png"], red, atol=1e-5)
    np.testing.assert_allclose(found[f"{texts}#0"], predictor.embed(texts=["a dog"])["texts"][0], atol=1e-5)
    captions = {
        row["path"]: row["caption"] for t in Store(tmp_path / "out").tables() for row in t.to_pylist()
    }
    assert captions[f"{shard}::1.png"] == "blue"
    assert captions[str(images / "0" / "00.png")] == "blocks"


def test_float16_halves_the_vectors(images: Path, tmp_path: Path) -> None:
    run(images / "0", tmp_path / "whole")
    run(images / "0", tmp_path / "half", job=Job(pretrained("clip_mini"), dtype="float16"))
    whole, half = contents(tmp_path / "whole"), contents(tmp_path / "half")
    for path, vector in whole.items():
        assert 0 < np.abs(vector - half[path]).max() < 1e-3


def test_what_cannot_be_done_is_said(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(images / "0", output)
    other = (
        r"holds embeddings of clip_mini .*as float32.*, not of clip_mini .*as float16.*: choose another "
        "--output"
    )
    with pytest.raises(RequestError, match=other):
        run(images / "0", output, job=Job(pretrained("clip_mini"), dtype="float16"))
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    (tmp_path / "bad.parquet").write_bytes(b"x" * 2000)
    for source, words in (
        ("nowhere", "no such file or folder"),
        ("bad.csv", "has the columns a, b; one must be called"),
        ("bad.tar", "not a complete, uncompressed tar file"),
        ("bad.parquet", "cannot be read as a table"),
    ):
        with pytest.raises(RequestError, match=words):
            run(tmp_path / source, output)
    part = output / Store(output).parts()[0]
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(RequestError, match=r"part-000000\.parquet"):
        run(images, output)


def test_a_damaged_source_costs_itself(images: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    report = run([tmp_path / "bad.tar", images / "0"], tmp_path / "out")
    assert report.embedded == 7 and not report.complete
    assert ["bad.tar: not a complete" in fault for fault in report.faults] == [True]


def test_a_caption_arrives_when_it_changes(images: Path, tmp_path: Path) -> None:
    def captions() -> dict[str, str | None]:
        rows = [row for table in Store(output).tables() for row in table.to_pylist()]
        return {Path(row["path"]).name: row["caption"] for row in rows}

    table, output = tmp_path / "t.csv", tmp_path / "out"
    header = "path,caption\n"
    table.write_text(header + "pictures/0/00.png,before\npictures/0/03.png,7\n")
    run(table, output)
    table.write_text(header + "pictures/0/00.png,AFTER\npictures/0/03.png,7\n")
    report = run(table, output)
    assert (report.embedded, report.known, captions()) == (1, 1, {"00.png": "AFTER", "03.png": "7"})
    assert run(images / "0", output).embedded == 5
    assert captions()["00.png"] == "AFTER"  # a folder says nothing about captions
    table.write_text(header + "pictures/0/00.png,\n")
    run(table, output)
    assert captions()["00.png"] is None


def test_content_decides_what_is_unchanged(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(images / "0", output)
    before = [(output / part).read_bytes() for part in Store(output).parts()]
    for path in (images / "0").iterdir():
        path.touch()
    assert (run(images / "0", output).embedded, run(images / "0", output).known) == (0, 7)
    assert [
        (output / part).read_bytes() for part in Store(output).parts()
    ] != before  # the new times are noted
    noted = Store(output).known()
    assert all(noted[item.path][0] == item.stamp for item in items_of([str(images / "0")]))
    shard = tmp_path / "s.tar"
    for colour in ("red", "tan"):
        file = io.BytesIO()
        Image.new("RGB", (40, 40), colour).save(file, "BMP")
        with tarfile.open(shard, "w") as tar:
            info = tarfile.TarInfo("a.bmp")
            info.size = len(file.getvalue())
            tar.addfile(info, io.BytesIO(file.getvalue()))
        os.utime(shard, (1, 1))
        assert run(shard, tmp_path / "tar").embedded == 1
        time.sleep(0.05)  # a file system's clock ticks in milliseconds


@pytest.mark.parametrize("option", ["exif_rotation", "fast_jpeg"])
def test_an_option_that_changes_embeddings_is_of_the_store(option: str, images: Path, tmp_path: Path) -> None:
    run(images / "0", tmp_path / "out")
    options = replace(PredictorOptions(), **{option: True})  # type: ignore[arg-type]
    job = replace(JOB, options=options)
    with pytest.raises(RequestError, match=rf"not of clip_mini .*with --{option}\): choose another --output"):
        run(images / "0", tmp_path / "out", job=job)
    run(images / "0", tmp_path / "other", job=job)
    with pytest.raises(RequestError, match=rf"holds embeddings of clip_mini .*with --{option}\), not of"):
        run(images / "0", tmp_path / "other")


def test_an_error_of_reading_is_tried_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, victim = tmp_path / "out", images / "0" / "00.png"
    read = Item.read

    def fails(item: Item) -> bytes:
        if item.path == str(victim):
            raise OSError(5, "Input/output error")
        return read(item)

    monkeypatch.setattr(Item, "read", fails)
    for expected in ((2, 0), (1, 1)):
        report = run(images, output)
        assert (report.failed, report.failed_before) == expected
        assert "Input/output error" in Store(output).errors()[str(victim)][1]
    monkeypatch.setattr(Item, "read", read)
    report = run(images, output)
    assert (report.embedded, report.failed, report.failed_before) == (1, 0, 1)  # the broken one is known
    assert list(Store(output).errors()) == [str(images / "1" / "broken.png")]


def test_what_is_embedded_stays_while_it_cannot_be_read(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, listed = tmp_path / "out", tmp_path / "list.txt"
    listed.write_text("pictures/0/00.png\npictures/0/03.png\n")
    run(listed, output)
    images.rename(tmp_path / "away")  # a disk is gone
    report = run(listed, output, prune=True)
    assert (report.failed, report.removed, len(contents(output))) == (2, 0, 2)
    (tmp_path / "away").rename(images)
    assert run(listed, output).known == 2
    assert not Store(output).errors()


def test_prune_takes_nothing_out_that_is_only_out_of_sight(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    run(images, output)
    (images / "2" / "02.webp").unlink()
    with monkeypatch.context() as patch:
        lock_folder(patch, "0")
        report = run(images, output, prune=True)
    assert (report.removed, report.kept, report.complete) == (1, 7, False)
    assert report.faults == [f"{images}/0: cannot be listed (Permission denied)"]
    with monkeypatch.context() as patch:
        lock_folder(patch, "0")
        report = run(images / "*" / "*.webp", output, prune=True)  # none of folder 1, which can be listed
    assert (report.removed, report.kept, report.complete) == (7, 7, False)
    assert {Path(path).parent.name for path in contents(output)} == {"0", "2"}
    for path in images.rglob("*.webp"):
        path.unlink()
    (images / "2" / "notes.md").touch()
    report = run([images / "2", images / "0"], output, prune=True)  # a mount is empty
    assert len(contents(output)) == 7 + 5 and not report.complete


def test_prune_takes_out_everything_only_if_told(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(images / "0", output)
    with pytest.raises(RequestError, match=r"none of its 7 embeddings .* give --prune_all"):
        run(images / "2", output, prune=True)
    assert len(contents(output)) == 7
    assert run(images / "2", output, prune_all=True).removed == 7
    (tmp_path / "empty").mkdir()
    embed(items_of([str(tmp_path / "empty")], may_be_empty=True), output, JOB, prune_all=True)
    assert contents(output) == {}


def test_a_name_that_is_not_utf_8_costs_nothing(images: Path, tmp_path: Path) -> None:
    odd = os.fsencode(images / "0") + b"/caf\xe9"
    Path(os.fsdecode(odd + b".png")).write_bytes((images / "0" / "00.png").read_bytes())
    Path(os.fsdecode(odd + b"_broken.png")).write_bytes(b"no")
    output = tmp_path / "out"
    report = run(images / "0", output)
    assert (report.embedded, report.failed) == (8, 1)
    found, errors = contents(output), Store(output).errors()
    name = rf"{images}/0/caf\xe9.png"
    np.testing.assert_allclose(found[name], found[f"{images}/0/00.png"], atol=1e-5)
    assert list(errors) == [rf"{images}/0/caf\xe9_broken.png"]
    assert (run(images / "0", output).known, run(images / "0", output).failed_before) == (8, 1)


def test_any_exception_of_an_image_is_its_own(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = Predictor.prepare

    def fails(self: Predictor, image: Any) -> Any:
        if image[0].endswith("00.png"):
            raise struct.error("unpack requires a buffer of 4 bytes")
        return prepare(self, image)

    monkeypatch.setattr(Predictor, "prepare", fails)
    report = run(images / "0", tmp_path / "out")
    assert (report.embedded, report.failed) == (6, 1)
    ((path, (_, reason)),) = Store(tmp_path / "out").errors().items()
    assert path.endswith("00.png") and "00.png: cannot be prepared (unpack requires" in reason


def test_paths_are_one_wherever_a_run_begins(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    run("pictures/0", output)
    monkeypatch.chdir(images)
    report = run("../pictures/0", output)
    assert (report.embedded, report.known) == (0, 7)
    assert set(contents(output)) == {f"pictures/0/{number:02d}.png" for number in range(0, 20, 3)}
    assert Store(output).root() == tmp_path


def test_a_full_disk_is_one_line(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "part-" in path.name:
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    words = (
        r"part-000000\.parquet cannot be written \(the disk is full: free some space, or choose another "
        r"place\)"
    )
    with pytest.raises(RequestError, match=words):
        run(images / "0", tmp_path / "out")
    assert not list((tmp_path / "out").glob(".part*"))


def test_what_a_killed_run_left_is_swept_up(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    left = [".part-000003.parquet.x1y2", ".errors.parquet.abc", ".root.q"]
    others = {"notes.txt", ".part-3"}
    for name in (*left, *others):
        (output / name).write_bytes(b"half")
    run(images / "0", output)
    assert {path.name for path in output.iterdir()} & {*left, *others} == others


def test_two_writers_do_not_mix(images: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with (
        FileLock(tmp_path / "out" / ".lock"),
        pytest.raises(RequestError, match="another process is writing"),
    ):
        run(images, tmp_path / "out")
