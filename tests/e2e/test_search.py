"""`index` and `search`: the database finds what brute force finds, and holds what the store holds."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pymilvus", reason="of the extra [test]")
from PIL import Image
from pymilvus import DataType

from clip_common.cli.main import main
from clip_common.config import pretrained
from clip_common.embedding.embed import Job, embed
from clip_common.embedding.sources import Item, items_of
from clip_common.embedding.store import Origin, Row, Store
from clip_common.errors import RequestError
from clip_common.predictor import Predictor
from clip_common.search.hits import Filter
from clip_common.search.index import Index
from clip_common.search.query import cell, query_vector
from clip_common.zero_shot.scoring import l2_normalize
from tests.support.paths import ROOT

ORIGIN = Origin("clip_mini", "0" * 64, 64)


def rows(count: int, seed: int = 0) -> list[Row]:
    vectors = l2_normalize(np.random.default_rng(seed).normal(size=(count, 64)).astype(np.float32))
    return [
        Row(Item(f"/photos/{'cats' if i % 2 else 'dogs_%'}/{i}.jpg", f"stamp-{i}"), vector, 100 + i, 50 + i)
        for i, vector in enumerate(vectors)
    ]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "vectors")
    for number in range(4):
        store.write_part(number, rows(1200)[number * 300 : (number + 1) * 300], ORIGIN)
    return store


def test_it_finds_what_brute_force_finds(store: Store, tmp_path: Path) -> None:
    index = Index(str(tmp_path / "index.db"))
    assert dataclasses.astuple(index.sync(store)) == (1200, 0, 0)
    everything = rows(1200)
    matrix = np.stack([row.vector for row in everything])
    queries = l2_normalize(np.random.default_rng(5).normal(size=(20, 64)))
    for query in queries:
        hits = index.search(ORIGIN, query, 10)
        best = np.argsort(-(matrix @ query))[:10]
        assert [hit.path for hit in hits] == [everything[i].item.path for i in best]
        np.testing.assert_allclose([hit.score for hit in hits], (matrix @ query)[best], atol=1e-5)
        wide = index.search(ORIGIN, query, 10, Filter(path="*/dogs_%/*", min_width=900, min_height=1000))
        allowed = [i for i in np.argsort(-(matrix @ query)) if i % 2 == 0 and i >= 950]
        assert [hit.path for hit in wide] == [everything[i].item.path for i in allowed[:10]]
    index.close()


def test_only_what_changed_is_written(store: Store, tmp_path: Path) -> None:
    address = str(tmp_path / "index.db")
    index = Index(address)
    index.sync(store)
    gone, changed = rows(1200)[3], rows(1200)[700]
    store.remove({gone.item.path, changed.item.path})
    moved = dataclasses.replace(changed.item, stamp="new")
    store.write_part(
        store.next_number(), [dataclasses.replace(changed, item=moved, vector=gone.vector)], ORIGIN
    )
    changes = index.sync(store)
    assert (changes.added, changes.removed, changes.kept) == (1, 1, 1198)
    index.close()
    index = Index(address)  # another process
    assert dataclasses.astuple(index.sync(store)) == (0, 0, 1199)
    best = index.search(ORIGIN, gone.vector, 2)
    assert best[0].path == changed.item.path
    assert best[0].score > 0.999 > best[1].score
    index.close()


def test_words_and_pictures_find_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ROOT / "examples"
    address = str(tmp_path / "index.db")
    embed(items_of([str(folder)]), tmp_path / "vectors", Job(pretrained("clip_mini")))
    assert main(["index", str(tmp_path / "vectors"), "--index", address]) == 0
    for words in ("a bicycle", "a diagram", "a tree"):
        capsys.readouterr()
        assert main(["search", words, "--index", address, "--format", "json", "--top_k", "3"]) == 0
        found = json.loads(capsys.readouterr().out)["results"]
        assert words.split()[-1] in [Path(hit["path"]).stem for hit in found], found
    picture = str(folder / "tree.png")
    assert (
        main(["search", "--image", picture, "--index", address, "--output_dir", str(tmp_path / "sheet")]) == 0
    )
    assert "tree.png" in capsys.readouterr().out.splitlines()[0]
    with Image.open(tmp_path / "sheet" / "search.png") as sheet:
        assert min(sheet.size) > 300


def test_words_beside_a_picture_are_weighed() -> None:
    predictor = Predictor(pretrained("clip_mini"))
    picture = str(ROOT / "examples" / "dog.png")
    words, image = (query_vector(predictor, *pair) for pair in (("a cat", None), (None, picture)))
    for weight in (0.0, 0.3, 1.0):
        both = query_vector(predictor, "a cat", picture, weight)
        np.testing.assert_allclose(both, l2_normalize(weight * words + (1 - weight) * image), atol=1e-6)


NAMES = [
    "photos/Москва/1.png", "photos/café/2.png", "photos/100%/3.png", "photos/a_b/4.png", "photos/aXb/5.png",
    'photos/q"uote/6.png', "photos/back\\slash/7.png", "photos/猫/8.png", "photos/new\nline/9.png",
    "photos/[x]/10.png", "photos/emoji😀/11.png", "it's/12.png", "tab\t13.png", "(a|b).+^$/14.png",
    "100\\%/15.png", "bell\x07/16.png", "a?b/17.png", "photos/100x/18.png",
]  # fmt: skip


def test_a_pattern_means_what_is_typed(tmp_path: Path) -> None:
    store = Store(tmp_path / "vectors")
    matrix = l2_normalize(np.random.default_rng(1).normal(size=(len(NAMES), 64)).astype(np.float32))
    store.write_part(0, [Row(Item(n, "1"), v, 9, 9) for n, v in zip(NAMES, matrix, strict=True)], ORIGIN)
    index = Index(str(tmp_path / "index.db"))
    index.sync(store)

    def found(pattern: str, top_k: int = 50) -> list[str]:
        return [hit.path for hit in index.search(ORIGIN, matrix[0], top_k, Filter(pattern))]

    for name in NAMES:
        assert found(name) == [name]
        assert found(f"*{name[2:-2]}*") == [name]
        assert found(f"*{name[2:-2]}*", top_k=1) == [name]  # what is only nearly like it takes no place
    assert set(found("*100%*")) == {"photos/100%/3.png"}
    assert set(found("*\\*")) == {"photos/back\\slash/7.png", "100\\%/15.png"}
    assert set(found("*%/*")) == {"photos/100%/3.png", "100\\%/15.png"}
    assert len(found("*")) == len(NAMES) and found('" or path like "%') == [] and found("") == []
    index.close()


def test_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (40, 40), "red").save(os.fsencode(tmp_path / "photos") + b"/caf\xe9.png", "PNG")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(ROOT / "examples" / "dog.png", "dog.png")
    row = {"bytes": (ROOT / "examples" / "cat.png").read_bytes(), "path": "cat.png"}
    pq.write_table(pa.table({"image": [row]}), tmp_path / "table.parquet")
    monkeypatch.chdir(tmp_path)
    job = Job(pretrained("clip_mini"))
    embed(items_of(["photos", "shard.tar", "table.parquet"]), Path("vectors"), job)
    index = Index("index.db")
    index.sync(Store(Path("vectors")))
    monkeypatch.chdir("elsewhere")
    origin = job.origin(job.predictor())
    hits = index.search(origin, np.ones(256, np.float32) / 16, 9)
    assert {hit.path for hit in hits} == {"photos/caf\\xe9.png", "shard.tar::dog.png", "table.parquet#0"}
    assert all(cell(hit)[0] is not None for hit in hits)
    name = tmp_path.name
    patterns = ["photos/*", f"{tmp_path}/photos/*", "/*/photos/caf*", "*/photos/*", f"*{name}/p*"]
    for pattern in [*patterns, f"*{name[2:]}*e9.png", r"*f\xe9*", os.fsdecode(b"*f\xe9*")]:
        (hit,) = index.search(origin, np.ones(256, np.float32) / 16, 9, Filter(pattern))
        assert hit.path == "photos/caf\\xe9.png", pattern
    assert index.search(origin, np.ones(256, np.float32) / 16, 9, Filter("/photos/*")) == []
    index.close()


def test_an_index_in_a_folder_that_is_not_utf_8_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Milvus needs a path in UTF-8: choose another place"):
        Index(f"{tmp_path}/{os.fsdecode(bytes([0xE9]))}/index.db")


def test_an_index_in_use_is_said(tmp_path: Path) -> None:
    address = str(tmp_path / "index.db")
    hold = (
        "import sys, fcntl; from clip_common.search.index import Index; index = Index(sys.argv[1]); "
        "print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, address], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout and process.stdout.readline()
        with pytest.raises(RequestError, match=r"index\.db cannot be opened: another process uses it"):
            Index(address)
        process.stdin.close()
        process.wait(60)
    Index(address).close()


def test_a_full_disk_is_one_line(store: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "clip_common", "index", str(store.folder), "--index"]
    limited = "import resource, sys, os; resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048)); "
    code = limited + "os.execv(sys.executable, sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *command, str(tmp_path / "index.db")],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.search(r"index\.db cannot be written: \[Errno 27\] File too large$", line), line


def test_an_index_of_an_earlier_version_is_made_again(store: Store, tmp_path: Path) -> None:
    address = str(tmp_path / "index.db")
    index = Index(address)
    collection = f"clip_hub__clip_mini__{ORIGIN.weights_sha256}"
    schema = index._client.create_schema()
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("stamp", DataType.VARCHAR, max_length=64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=64)
    parameters = index._client.prepare_index_params()
    parameters.add_index("vector", index_type="FLAT", metric_type="COSINE")
    index._client.create_collection(collection, schema=schema, index_params=parameters)
    assert dataclasses.astuple(index.sync(store)) == (1200, 0, 0)
    assert index.search(ORIGIN, rows(1200)[5].vector, 1)[0].path == rows(1200)[5].item.path
    index.close()


def test_what_cannot_be_done_is_said(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RequestError, match="holds no vectors"):
        Index(str(tmp_path / "index.db")).sync(Store(tmp_path / "empty"))
    for arguments, words in (
        (["search", "a", "--index", str(tmp_path / "none.db")], "no such file; make it with `index`"),
        (["search", "a", "--index", "x.sqlite"], "a file must end in .db"),
        (["search", "--index", str(tmp_path / "index.db")], "nothing to search for"),
        (
            ["search", "a", "--index", str(tmp_path / "index.db")],
            "holds no index of clip_mini with these weights",
        ),
    ):
        assert main(arguments) == 1
        assert words in capsys.readouterr().err
