"""An index in a file: finds what brute force finds, holds what the store holds, and is always whole."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clip_common.embedding.items import Item
from clip_common.embedding.origin import Origin
from clip_common.embedding.store import Row, Store
from clip_common.errors import RequestError
from clip_common.search import file_index
from clip_common.search.file_index import FileIndex
from clip_common.search.hits import Filter
from clip_common.search.index import open_index
from clip_common.search.query import as_table
from clip_common.system.file_names import escape_name, printable_lines
from clip_common.zero_shot.scoring import l2_normalize
from tests.support.paths import ROOT
from tests.support.stores import ORIGIN, random_rows, random_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return random_store(tmp_path / "vectors")


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "photos.index")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("block", [8192, 100])
def test_it_finds_what_brute_force_finds(
    tmp_path: Path, address: str, dtype: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_index, "_BLOCK", block)
    origin = dataclasses.replace(ORIGIN, dtype=dtype)
    index = FileIndex(address)
    changes = index.sync(random_store(tmp_path / "vectors", origin=origin))
    assert dataclasses.astuple(changes) == (1200, 0, 0, 0)
    everything = random_rows(1200)
    matrix = np.stack([row.vector for row in everything]).astype(dtype).astype(np.float32)
    for query in l2_normalize(np.random.default_rng(5).normal(size=(20, 64)).astype(np.float32)):
        order = np.argsort(-(matrix @ query))
        hits = index.search(origin, query, 10)
        assert [hit.path for hit in hits] == [everything[i].item.path for i in order[:10]]
        np.testing.assert_allclose([hit.score for hit in hits], (matrix @ query)[order[:10]], atol=1e-5)
        narrow = index.search(origin, query, 10, Filter("*/dogs_%/*", min_width=900, min_height=1000))
        allowed = [i for i in order if i % 2 == 0 and i >= 950]
        assert [hit.path for hit in narrow] == [everything[i].item.path for i in allowed[:10]]
        assert index.search(origin, query, 10, Filter(min_score=hits[4].score)) == hits[:5]
        assert [hit.path for hit in index.search(origin, query, 9999)] == [
            everything[i].item.path for i in order
        ]


def test_a_search_imports_nothing_that_is_slow_to_import(store: Store, address: str) -> None:
    FileIndex(address).sync(store)
    code = f"""if True:
        import sys
        import numpy as np
        from clip_common.cli import search
        from clip_common.embedding.origin import Origin
        from clip_common.search.hits import Filter
        from clip_common.search.index import open_index
        from clip_common.search.query import Query, as_json
        index, origin = open_index({address!r}), Origin("clip_mini", "0" * 64, 64)
        vector = Query().embedding(None, [index.find(origin, {random_rows(1)[0].item.path!r})[1]])
        assert len(index.search(origin, vector, 5, Filter("*", 1, 1), 0.9)) == 5
        slow = ("pandas", "pyarrow.parquet", "pyarrow.compute", "matplotlib", "requests", "tqdm", "paddle")
        sys.exit(", ".join(name for name in slow if name in sys.modules) or 0)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_of_equal_scores_the_first_row_comes_first(tmp_path: Path, address: str) -> None:
    store = Store(tmp_path / "vectors")
    rows = [dataclasses.replace(row, vector=np.eye(64, dtype=np.float32)[0]) for row in random_rows(50)]
    store.write_part(0, rows, ORIGIN)
    index = FileIndex(address)
    index.sync(store)
    for top_k in (1, 7, 50):
        hits = index.search(ORIGIN, rows[0].vector, top_k)
        assert [hit.path for hit in hits] == [row.item.path for row in rows[:top_k]]


def test_counts_without_sense(store: Store, address: str) -> None:
    index, vector = FileIndex(address), random_rows(1)[0].vector
    index.sync(store)
    for top_k in (10**30, sys.maxsize):
        assert len(index.search(ORIGIN, vector, top_k, Filter(without=frozenset("a")))) == 1200
    for wrong in (0, -1, 2.5, "3", None):
        with pytest.raises(RequestError, match=f"top_k is {wrong!r}, expected a whole number from 1"):
            index.search(ORIGIN, vector, wrong)  # type: ignore[arg-type]


def test_only_what_changed_counts(store: Store, address: str) -> None:
    index = FileIndex(address)
    index.sync(store)
    gone, changed = random_rows(1200)[3], random_rows(1200)[700]
    store.remove({gone.item.path, changed.item.path})
    moved = dataclasses.replace(
        changed, item=dataclasses.replace(changed.item, stamp="new"), vector=gone.vector
    )
    store.write_part(store.next_number(), [moved], ORIGIN)
    assert dataclasses.astuple(index.sync(store)) == (1, 1, 1198, 0)
    written = Path(address).stat()
    index = FileIndex(address)  # another process
    assert dataclasses.astuple(index.sync(store)) == (0, 0, 1199, 0)
    assert Path(address).stat() == written
    best = index.search(ORIGIN, gone.vector, 2)
    assert best[0].path == changed.item.path
    assert best[0].score > 0.999 > best[1].score


NAMES = [
    "photos/Москва/1.png", "photos/café/2.png", "photos/100%/3.png", "photos/a_b/4.png", "photos/aXb/5.png",
    'photos/q"uote/6.png', "photos/back\\slash/7.png", "photos/猫/8.png", "photos/new\nline/9.png",
    "photos/[x]/10.png", "photos/emoji😀/11.png", "it's/12.png", "tab\t13.png", "(a|b).+^$/14.png",
    "100\\%/15.png", "bell\x07/16.png", "a?b/17.png", "photos/100x/18.png",
]  # fmt: skip


def test_a_pattern_means_what_is_typed(tmp_path: Path, address: str) -> None:
    store = Store(tmp_path / "vectors")
    matrix = l2_normalize(np.random.default_rng(1).normal(size=(len(NAMES), 64)).astype(np.float32))
    store.write_part(0, [Row(Item(n, "1"), v, 9, 9) for n, v in zip(NAMES, matrix, strict=True)], ORIGIN)
    index = FileIndex(address)
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


@pytest.mark.parametrize(
    ("root", "likes", "others"),
    [
        ("/a/bc", ["bc/x.jpg", "*x.jpg", "/a/bc/bc/*", "/a/*/x.jpg", "*a/bc/bc*", "bc/*", "*/bc/x.jpg", "*"],
         ["x.jpg", "c/x.jpg", "/bc/x.jpg", "a/bc/bc/x.jpg", "/a/bc/x.jpg", "/a/bcbc/x.jpg", "/*/a/bc/*"]),
        ("/", ["bc/x.jpg", "/bc/x.jpg", "/*/x.jpg", "*"], ["//bc/x.jpg", "x.jpg"]),
        ("", ["bc/x.jpg", "*/x.jpg", "*"], ["/bc/x.jpg", "/*"]),
    ],
)  # fmt: skip
def test_a_pattern_is_of_the_path_as_kept_or_from_the_top(
    root: str, likes: list[str], others: list[str]
) -> None:
    for pattern in likes:
        assert Filter(pattern).allowed_paths(["bc/x.jpg"], root) == [True], pattern
    for pattern in others:
        assert Filter(pattern).allowed_paths(["bc/x.jpg"], root) == [False], pattern
    assert Filter("/y/*").allowed_paths(["/y/x.jpg", "/z/x.jpg"], root) == [True, False]
    assert Filter("bc/*").allowed_paths(["/y/bc/x.jpg"], "/y") == [False]


def test_an_image_of_the_index_is_found_by_its_path(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "vectors")
    names = ["cats/1.png", "caf\\xe9.png", "/elsewhere/2.png"]
    rows = [
        dataclasses.replace(row, item=Item(name, "1"))
        for row, name in zip(random_rows(3), names, strict=True)
    ]
    store.write_part(0, rows, ORIGIN)
    store.write_root(tmp_path / "photos")
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    index = FileIndex(address)
    index.sync(store)
    monkeypatch.chdir(tmp_path / "photos" / "cats")
    for typed, place in (
        ("cats/1.png", 0), (f"{tmp_path}/photos/cats/1.png", 0), ("1.png", 0), ("./1.png", 0),
        ("caf\\xe9.png", 1), (os.fsdecode(b"caf\xe9.png"), 1), ("../" + os.fsdecode(b"caf\xe9.png"), 1),
        ("/elsewhere/2.png", 2),
    ):  # fmt: skip
        name, vector = index.find(ORIGIN, typed)
        assert name == names[place], typed
        np.testing.assert_array_equal(vector, rows[place].vector)
    with pytest.raises(RequestError, match=r"--like 3\.png: .*photos\.index has no image with this path"):
        index.find(ORIGIN, "3.png")


@pytest.mark.parametrize("console", ["utf-8", "ascii"])
def test_what_is_printed_can_be_given_back(console: str, tmp_path: Path, address: str) -> None:
    """Of names that would be printed alike, too."""
    names = [
        "a\nb.png",
        "a\\nb.png",
        "a\\\\nb.png",
        "é.png",
        "\udce9.png",
        "\\xe9.png",
        "\x9b.png",
        "狗\x1b.png",
    ]
    store, odd = Store(tmp_path / "vectors"), random_rows(len(names))
    kept = [escape_name(name) for name in names]
    rows = [dataclasses.replace(row, item=Item(name, "1")) for row, name in zip(odd, kept, strict=True)]
    store.write_part(0, rows, ORIGIN)
    index = FileIndex(address)
    index.sync(store)
    printed = []
    for row in rows:
        (hit,) = index.search(ORIGIN, row.vector, 1)
        printed.append(printable_lines(as_table([hit]), console).split("  ")[-1].strip())
    assert len(set(printed)) == len(names)
    for name, shown in zip(kept, printed, strict=True):
        assert index.find(ORIGIN, shown)[0] == name
        found = [hit.path for hit in index.search(ORIGIN, rows[0].vector, 9, Filter(shown))]
        assert name in found


def test_near_duplicates_are_folded_into_the_first(tmp_path: Path, address: str) -> None:
    store = Store(tmp_path / "vectors")
    basis = np.eye(64, dtype=np.float32)
    vectors = [basis[0], basis[1], basis[0] + 0.1 * basis[2], basis[1] + 0.1 * basis[2], basis[3], basis[4]]
    names = ["a", "b", "a2", "b2", "c", "d"]
    rows = [Row(Item(name, "1"), l2_normalize(v), 1, 1) for name, v in zip(names, vectors, strict=True)]
    store.write_part(0, rows, ORIGIN)
    index = FileIndex(address)
    index.sync(store)
    query = l2_normalize(np.array([4, 3, 0, 2, 1], np.float32) @ basis[:5])
    for top_k, expected in ((2, 2), (3, 3), (9, 4)):
        hits = index.search(ORIGIN, query, top_k, threshold=0.99)
        found = {hit.path: hit.duplicates for hit in hits}
        assert found == dict([("a", ("a2",)), ("b", ("b2",)), ("c", ()), ("d", ())][:expected])
    hits = index.search(ORIGIN, query, 2, Filter(without=frozenset("a")), 0.99)
    assert [(hit.path, hit.duplicates) for hit in hits] == [("a2", ()), ("b", ("b2",))]
    assert len(index.search(ORIGIN, query, 9, threshold=0.9999)) == 6


def test_folding_where_nothing_is_near_changes_nothing(store: Store, address: str) -> None:
    index = FileIndex(address)
    index.sync(store)
    query = random_rows(1)[0].vector
    for top_k in (15, 17, 300, 5000):
        assert index.search(ORIGIN, query, top_k, threshold=0.99) == index.search(ORIGIN, query, top_k)
    assert len(index.search(ORIGIN, query, 5, threshold=-1.0)[0].duplicates) == 1199


def test_what_is_no_number_is_left_out_and_counted(tmp_path: Path, address: str) -> None:
    store = Store(tmp_path / "vectors")
    rows = random_rows(10)
    rows[3].vector[5], rows[7].vector[0] = np.nan, np.inf
    store.write_part(0, rows, ORIGIN)
    store.write_part(1, [dataclasses.replace(rows[3], item=Item("alone", "1"))], ORIGIN)
    index = FileIndex(address)
    assert dataclasses.astuple(index.sync(store)) == (8, 0, 0, 3)
    assert len(index.search(ORIGIN, rows[0].vector, 99)) == 8
    assert dataclasses.astuple(index.sync(store)) == (0, 0, 8, 3)


def test_a_search_sees_the_old_file_or_the_new_one(store: Store, address: str) -> None:
    FileIndex(address).sync(store)
    reader = FileIndex(address, must_exist=True)
    assert reader.current() is reader
    row = random_rows(1200)[5]
    store.remove({row.item.path})
    FileIndex(address).sync(store)
    assert reader.search(ORIGIN, row.vector, 1)[0].path == row.item.path
    assert reader.current().search(ORIGIN, row.vector, 1)[0].path != row.item.path
    Path(address).unlink()
    with pytest.raises(RequestError, match="no such file; make it with `index`"):
        reader.current()


def test_what_a_killed_index_left_is_swept_up(store: Store, address: str) -> None:
    left = Path(address).with_name(".photos.index.abcdefgh.unfinished")
    left.write_bytes(b"half")
    FileIndex(address).sync(store)
    assert not left.exists()
    assert sorted(path.name for path in left.parent.iterdir()) == ["photos.index", "vectors"]


def test_two_that_index_at_once(store: Store, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = FileIndex(address), FileIndex(address)
    quick.sync(store)
    with pytest.raises(RequestError, match="was written by another process meanwhile: index again"):
        slow.sync(store)
    assert len(FileIndex(address).search(ORIGIN, random_rows(1)[0].vector, 9999)) == 1200


def test_another_store_or_another_model_does_not_take_the_place_of_all(
    store: Store, address: str, tmp_path: Path
) -> None:
    index = FileIndex(address)
    index.sync(store)
    other = Store(tmp_path / "others")
    rows = [dataclasses.replace(row, item=Item(f"{i}.jpg", "1")) for i, row in enumerate(random_rows(5))]
    other.write_part(0, rows, ORIGIN)
    with pytest.raises(RequestError, match=r"none of its 1200 rows is in .*others; .* give --prune_all"):
        index.sync(other)
    other.write_root(tmp_path / "photos")
    with pytest.raises(RequestError, match="1200 of its 1200 rows are of images below no known folder"):
        index.sync(other)
    assert len(index.search(ORIGIN, rows[0].vector, 9999)) == 1200
    assert dataclasses.astuple(index.sync(other, prune_all=True)) == (5, 1200, 0, 0)

    foreign = Store(tmp_path / "foreign")
    foreign.write_part(0, rows, Origin("clip_rn50", "1" * 64, 64))
    with pytest.raises(
        RequestError, match=r"holds embeddings of clip_mini \(weights 0{12}\), not of clip_rn50"
    ):
        index.sync(foreign)
    with pytest.raises(RequestError, match=r"not of clip_rn50 .*: give the --module and --weights"):
        index.require(Origin("clip_rn50", "1" * 64, 64))


def test_images_that_only_moved_are_indexed_again(tmp_path: Path, address: str) -> None:
    store = Store(tmp_path / "vectors")
    store.write_part(
        0, [dataclasses.replace(row, item=Item(f"{i}", "1")) for i, row in enumerate(random_rows(9))], ORIGIN
    )
    index = FileIndex(address)
    for root, expected in (("here", (9, 0, 0, 0)), ("here", (0, 0, 9, 0)), ("there", (9, 0, 0, 0))):
        store.write_root(tmp_path / root)
        assert dataclasses.astuple(index.sync(store)) == expected
        assert index.search(ORIGIN, np.eye(64)[0], 1)[0].root == str(tmp_path / root)


def test_the_same_images_embedded_in_another_way_replace_all(
    tmp_path: Path, store: Store, address: str
) -> None:
    index = FileIndex(address)
    index.sync(store)
    half = dataclasses.replace(ORIGIN, dtype="float16")
    assert dataclasses.astuple(index.sync(random_store(tmp_path / "half", origin=half))) == (1200, 0, 0, 0)
    assert len(index.search(ORIGIN, random_rows(1)[0].vector, 9999)) == 1200


def test_texts_have_no_size(tmp_path: Path, address: str) -> None:
    store = Store(tmp_path / "vectors")
    text = dataclasses.replace(
        random_rows(1)[0], item=Item("t.csv#0", "1", caption="a dog"), width=None, height=None
    )
    store.write_part(0, [text, random_rows(2)[1]], ORIGIN)
    index = FileIndex(address)
    index.sync(store)
    hit, _ = index.search(ORIGIN, text.vector, 2)
    assert (hit.width, hit.height, hit.caption) == (0, 0, "a dog")
    assert len(index.search(ORIGIN, text.vector, 2, Filter(min_width=1))) == 1


@pytest.mark.parametrize("what", ["folder", "empty", "junk", "cut", "parquet", "pipe"])
def test_what_is_no_index_is_left_alone(store: Store, tmp_path: Path, what: str) -> None:
    path = tmp_path / "photos.db"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "cut":
        FileIndex(str(path)).sync(store)
        path.write_bytes(path.read_bytes()[:-2000])
    elif what == "parquet":
        path.write_bytes((tmp_path / "vectors" / store.parts()[0]).read_bytes())
        assert pq.read_table(path).num_rows
    else:
        path.write_bytes(b"" if what == "empty" else b"SQLite format 3\x00" + bytes(5000))
    with pytest.raises(RequestError, match=r"photos\.db: not an index of this version; it is .*: index into"):
        FileIndex(str(path))
    assert path.exists()


def test_a_damaged_file_is_refused_or_answers(store: Store, address: str, tmp_path: Path) -> None:
    """It may not end the process, which is why it has one of its own."""
    FileIndex(address).sync(store)
    code = f"""if True:
        import random
        from pathlib import Path
        import numpy as np
        from clip_common.errors import RequestError
        from clip_common.search.file_index import FileIndex
        from clip_common.search.hits import Filter
        from tests.support.stores import ORIGIN
        whole, damaged, refused = Path({address!r}).read_bytes(), Path({str(tmp_path / "damaged")!r}), 0
        for number in range(300):
            rng, content = random.Random(number), bytearray(whole)
            for _ in range(rng.choice((1, 3, 20))):
                low, high = rng.choice(((0, 2500), (-2500, -1), (0, len(whole) - 1)))
                content[rng.randint(low, high)] = rng.randrange(256)
            damaged.write_bytes(content[: rng.choice((len(whole), len(whole), rng.randrange(len(whole))))])
            try:
                index = FileIndex(str(damaged))
                index.search(ORIGIN, np.full(64, 0.125), 5, Filter("*e*", 1, 1), 0.9)
                index._rows()
            except RequestError:
                refused += 1
        assert 100 < refused < 300, refused
    """
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_is_not_utf_8_will_do(store: Store, tmp_path: Path) -> None:
    address = f"{tmp_path}/new/{os.fsdecode(bytes([0xE9]))}/photos.db"
    FileIndex(address).sync(store)
    assert len(FileIndex(address, must_exist=True).search(ORIGIN, random_rows(1)[0].vector, 3)) == 3


def test_a_link_stays_one(store: Store, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "real.db")
    FileIndex(str(link)).sync(store)
    assert link.is_symlink() and (tmp_path / "real.db").stat().st_size


def test_what_cannot_be_done_is_said(tmp_path: Path, address: str, store: Store) -> None:
    with pytest.raises(RequestError, match="holds no embeddings: make them with `embed`"):
        FileIndex(address).sync(Store(tmp_path / "empty"))
    assert not Path(address).exists()
    with pytest.raises(RequestError, match=r"photos\.index: no such file; make it with `index`"):
        FileIndex(address, must_exist=True)
    with pytest.raises(RequestError, match="oss://photos: give a file, or http://HOST:19530"):
        open_index("oss://photos")
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"x\.db cannot be (opened|written): Not a directory"):
        FileIndex(f"{tmp_path}/file/x.db").sync(store)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(RequestError, match=r"locked cannot be written \(Permission denied\)"):
        FileIndex(f"{folder}/x.db").sync(store)
    folder.chmod(0o700)
