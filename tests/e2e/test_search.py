"""`index` and `search`: the database finds what brute force finds, and holds what the store holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="of the extra [test]")
from PIL import Image

from clip_common.cli.main import main
from clip_common.config import pretrained
from clip_common.embedding.embed import Job, embed
from clip_common.embedding.sources import Item, items_of
from clip_common.embedding.store import Origin, Row, Store
from clip_common.errors import RequestError
from clip_common.predictor import Predictor
from clip_common.search.index import Filter, Index
from clip_common.search.query import query_vector
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
        (["search", "a", "--top_k", "0", "--index", "x.db"], "--top_k is 0"),
    ):
        assert main(arguments) == 1
        assert words in capsys.readouterr().err
