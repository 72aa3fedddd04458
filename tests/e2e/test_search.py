"""`index` and `search` as commands, from images to what is found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clip_common.cli.main import main
from clip_common.config import pretrained
from clip_common.embedding.embed import embed
from clip_common.embedding.parts import Job
from clip_common.embedding.sources import items_of
from clip_common.embedding.store import Store
from clip_common.search.contact_sheet import cell
from clip_common.search.file_index import FileIndex
from clip_common.search.hits import Filter
from tests.support.paths import EXAMPLES, ROOT
from tests.support.stores import ORIGIN, random_rows, random_store

COMMAND = [sys.executable, "-m", "clip_common"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of the example images and a copy of one, made by the commands."""
    folder = tmp_path_factory.mktemp("index")
    with Image.open(EXAMPLES / "dog.png") as image:
        image.save(folder / "copy_of_dog.png")
    sources = [str(EXAMPLES), str(folder / "copy_of_dog.png")]
    assert main(["embed", *sources, "--output", str(folder / "vectors")]) == 0
    (folder / "copy_of_dog.png").unlink()
    assert main(["index", str(folder / "vectors"), "--index", str(folder / "photos.db")]) == 0
    return str(folder / "photos.db")


def search(address: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict]:
    """What a search prints, by the images' names."""
    capsys.readouterr()
    assert main(["search", *arguments, "--index", address, "--format", "json"]) == 0
    hits = json.loads(capsys.readouterr().out)["results"]
    return {Path(hit["path"]).stem: hit for hit in hits}


def test_words_and_images_find_images(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ("a bicycle", "a diagram", "a tree"):
        assert words.split()[-1] in search(address, capsys, words, "--top_k", "3")
    image = str(EXAMPLES / "tree.png")
    assert (
        main(["search", "--image", image, "--index", address, "--output_dir", str(tmp_path / "sheet")]) == 0
    )
    assert "tree.png" in capsys.readouterr().out.splitlines()[0]
    with Image.open(tmp_path / "sheet" / "search.png") as sheet:
        assert min(sheet.size) > 300


def test_words_are_added_and_taken_away(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    def scores(*words: str) -> dict[str, float]:
        found = search(address, capsys, *words, "--top_k", "99")
        found.pop("copy_of_dog")  # which is level with the dog
        return {name: hit["score"] for name, hit in found.items()}

    dog, cat, without = scores("a", "dog"), scores("a cat"), scores("a", "dog", "-", "a", "cat")
    assert without == scores("a dog - a cat")
    assert list(without) == sorted(without, key=lambda name: cat[name] - dog[name])
    assert scores("a dog - a cat^0.5") != without != scores("a dog + a cat")
    assert list(scores("- a dog")) == list(scores("a dog"))[::-1]


def test_more_like_an_image_of_the_index_that_is_gone(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = search(address, capsys, "a dog", "--path", "*copy_of_dog*")["copy_of_dog"]["path"]
    found = search(address, capsys, "--like", copy)
    assert "copy_of_dog" not in found
    assert next(iter(found)) == "dog" and found["dog"]["score"] > 0.999
    beside = search(address, capsys, "a bicycle", "--like", copy, "--text_weight", "0.9", "--top_k", "3")
    assert "bicycle" in beside
    assert main(["search", "--like", "nothing.png", "--index", address]) == 1
    assert "--like nothing.png: " in capsys.readouterr().err


def test_scores_and_near_duplicates(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    everything = search(address, capsys, "a dog", "--top_k", "99")
    scores = sorted(hit["score"] for hit in everything.values())
    some = search(address, capsys, "a dog", "--top_k", "99", "--min_score", str(scores[-4]))
    assert len(some) == 4
    assert search(address, capsys, "a dog", "--min_score", "1") == {}
    folded = search(address, capsys, "a dog", "--top_k", "99", "--fold", "0.999")
    assert len(folded) == len(everything) - 1
    (pair,) = [
        {name, *(Path(path).stem for path in hit["duplicates"])}
        for name, hit in folded.items()
        if hit["duplicates"]
    ]
    assert pair == {"dog", "copy_of_dog"}
    main(["search", "a dog", "--index", address, "--fold", "0.999"])
    assert "(+1 alike)" in capsys.readouterr().out


def test_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (40, 40), "red").save(os.fsencode(tmp_path / "photos") + b"/caf\xe9.png", "PNG")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(EXAMPLES / "dog.png", "dog.png")
    row = {"bytes": (EXAMPLES / "cat.png").read_bytes(), "path": "cat.png"}
    pq.write_table(pa.table({"image": [row]}), tmp_path / "table.parquet")
    monkeypatch.chdir(tmp_path)
    job = Job(pretrained("clip_mini"))
    embed(items_of(["photos", "shard.tar", "table.parquet"]), Path("vectors"), job)
    index = FileIndex("index.db")
    index.sync(Store(Path("vectors")))
    monkeypatch.chdir("elsewhere")
    origin = job.origin(job.predictor())
    hits = index.search(origin, np.ones(512, np.float32) / 512**0.5, 9)
    assert {hit.path for hit in hits} == {"photos/caf\\xe9.png", "shard.tar::dog.png", "table.parquet#0"}
    assert all(cell(hit)[0] is not None for hit in hits)
    name = tmp_path.name
    patterns = ["photos/*", f"{tmp_path}/photos/*", "/*/photos/caf*", "*/photos/*", f"*{name}/p*"]
    for pattern in [*patterns, f"*{name[2:]}*e9.png", r"*f\xe9*", os.fsdecode(b"*f\xe9*")]:
        (hit,) = index.search(origin, np.ones(512, np.float32) / 512**0.5, 9, Filter(pattern))
        assert hit.path == "photos/caf\\xe9.png", pattern
    assert index.search(origin, np.ones(512, np.float32) / 512**0.5, 9, Filter("/photos/*")) == []


def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path: Path) -> None:
    address = tmp_path / "photos.db"
    FileIndex(str(address)).sync(random_store(tmp_path / "few", 4))
    before = address.read_bytes()
    store = random_store(tmp_path / "many")
    limited = "import resource, sys, os; resource.setrlimit(resource.RLIMIT_FSIZE, (99999, 99999)); "
    code = limited + "os.execv(sys.executable, sys.argv[1:])"
    command = [*COMMAND, "index", str(store.folder), "--index", str(address)]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"clip-hub index: the index {address} cannot be written: the file is larger than ")
    assert address.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "many", "photos.db"]


def test_a_kill_leaves_the_old_file_and_nothing_after_the_next_run(tmp_path: Path) -> None:
    address = tmp_path / "photos.db"
    FileIndex(str(address)).sync(random_store(tmp_path / "few", 4))
    before = address.read_bytes()
    store = random_store(tmp_path / "many", 40_000)
    command = [*COMMAND, "index", str(store.folder), "--index", str(address)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(tmp_path.glob(".photos.db.*")):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert address.read_bytes() == before
    assert len(list(tmp_path.glob(".photos.db.*.unfinished"))) == 1
    assert main(["index", str(store.folder), "--index", str(address)]) == 0
    assert len(FileIndex(str(address)).search(ORIGIN, random_rows(1)[0].vector, 99_999)) == 40_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "many", "photos.db"]


def test_what_cannot_be_done_is_said(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FileIndex(str(tmp_path / "other.db")).sync(random_store(tmp_path / "vectors", 4))
    for arguments, words in (
        (["search", "a", "--index", str(tmp_path / "none.db")], "no such file; make it with `index`"),
        (["search", "a", "--index", "ftp://x"], "--index ftp://x: give a file, or http://HOST:19530"),
        (["search", "a", "--index", str(tmp_path / "other.db")], "embeddings of clip_mini (weights 000"),
        (["search", "--index", address], "nothing to search for"),
        (["search", "a dog -", "--index", address], "words are missing"),
        (["index", str(tmp_path), "--index", str(tmp_path / "x.db")], "holds no embeddings"),
    ):  # fmt: skip
        capsys.readouterr()
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert words in error and len(error.splitlines()) == 1
