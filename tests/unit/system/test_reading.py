"""What a user names is read within bounds: no pipe, no device, nothing larger than there is room for."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import pytest

from clip_common.config import pretrained
from clip_common.embedding.items import content_of
from clip_common.embedding.sources import items_of
from clip_common.errors import RequestError, WeightsError
from clip_common.evaluation.datasets import read_labelled
from clip_common.preprocessing.files import Seen, image_files
from clip_common.system.reading import read_whole
from clip_common.weights.model_settings import known_settings
from clip_common.weights.readers import read_state
from tests.support.paths import EXAMPLES
from tests.support.refusals import refused

DOG = str(EXAMPLES / "dog.png")
NO_FILE = "it is a pipe or a device, not a file: save it to a file first"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """Nobody writes into it, so that to open it would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def sparse(path: Path, size: int) -> Path:
    """A file that has a size and takes no room."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_a_file_is_read_whole_and_nothing_else_is_opened(tmp_path: Path, pipe: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert read_whole(tmp_path / "file", 7) == b"content"
    for path, words in {
        pipe: NO_FILE,
        Path("/dev/zero"): NO_FILE,
        tmp_path: "Is a directory",
        tmp_path / "nowhere": "No such file",
        sparse(tmp_path / "large", 1 << 40): "it has 1,099,511,627,776 bytes, and at most 1,073,741,824 are",
    }.items():
        with pytest.raises(OSError, match=words):
            read_whole(path)
    with pytest.raises(OSError, match="it has 7 bytes, and at most 6 are read: is it the wrong file"):
        read_whole(tmp_path / "file", 6)


@pytest.mark.parametrize(
    "command",
    [
        "classify {dog} --thresholds {file}",
        "classify {dog} --labels_file {file}",
        "evaluate {images} --classes_file {file}",
        "weights convert {file} x.safetensors",
        "serve clip_mini --port 0 --thresholds {file}",
    ],
)
@pytest.mark.parametrize("what", ["pipe", "/dev/zero", "sparse"])
def test_an_option_that_names_a_file(
    what: str, command: str, pipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if command.startswith("serve"):
        pytest.importorskip("ray")
    file = {"pipe": pipe, "sparse": sparse(tmp_path / "sparse", 1 << 40)}.get(what, what)
    if what == "sparse" and command.startswith("weights"):
        pytest.skip("weights are mapped, and may have any size")
    argv = command.format(dog=DOG, images=EXAMPLES, file=file).split()
    said = refused(capsys, *argv)
    assert str(file) in said
    assert "at most 67,108,864 are read" in said if what == "sparse" else NO_FILE in said


@pytest.mark.parametrize("name", ["config.json", "open_clip_config.json"])
def test_what_stands_beside_weights(name: str, tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    sparse(tmp_path / name, 1 << 40)
    with pytest.raises(WeightsError, match=f"{name}, beside the weights, cannot be read: it has 1,099"):
        known_settings(pretrained("clip_vit_b32"), weights, "0" * 64)
    (tmp_path / name).write_text("[" * 100_000)
    with pytest.raises(WeightsError, match="beside the weights, cannot be read"):
        known_settings(pretrained("clip_vit_b32"), weights, "0" * 64)


def test_weights_that_are_a_pipe(pipe: Path) -> None:
    with pytest.raises(WeightsError, match=f"cannot read weights {pipe}: {NO_FILE}"):
        read_state(pipe)


def test_a_link_that_leads_to_a_pipe_is_no_image(pipe: Path, tmp_path: Path) -> None:
    """Without a suffix its first bytes would be looked at."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link").symlink_to(pipe)
    seen = Seen()
    assert list(image_files(str(tmp_path / "images"), seen)) == []
    assert seen.passed_over["without a usual suffix"] == 1


def test_images_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = sparse(tmp_path / "large.png", 1 << 40)
    (item,) = items_of([str(large)])
    with pytest.raises(OSError, match="it has 1,099,511,627,776 bytes"):
        item.read()
    with pytest.raises(OSError, match="it has 1,099,511,627,776 bytes"):
        content_of(str(large), "")
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        shard.add(DOG, "dog.png")
    (item,) = items_of([str(tmp_path / "shard.tar")])
    for module in ("items", "shards"):
        monkeypatch.setattr(f"clip_common.embedding.{module}.MOST_BYTES", 1000)
    with pytest.raises(OSError, match="at most 1,000 are read"):
        item.read()
    with pytest.raises(OSError, match="at most 1,000 are read"):
        content_of(f"{tmp_path}/shard.tar::dog.png", "")


def test_a_table_of_images_may_not_name_a_device(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = pa.table({"image": [{"bytes": None, "path": "/dev/zero"}, {"bytes": b"x", "path": None}]})
    pq.write_table(rows, tmp_path / "t.parquet")
    first, _ = items_of([str(tmp_path / "t.parquet")])
    with pytest.raises(OSError, match=NO_FILE):
        first.read()


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"\0\0\x08\x01" + b"\xff" * 9)[:-6], b""])
def test_a_damaged_file_of_a_usual_data_set_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(RequestError, match=r"t10k-images-idx3-ubyte\.gz: not a file in MNIST's format"):
        read_labelled(f"fashion-mnist:{tmp_path}")


def test_a_small_file_that_unpacks_to_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_common.evaluation.known_datasets._MOST_UNPACKED", 1000)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(b"\0\0\x08\x01\0\0\x10\0" + bytes(0x1000))
    )
    with pytest.raises(RequestError, match="not a file in MNIST's format, or damaged"):
        read_labelled(f"fashion-mnist:{tmp_path}")
