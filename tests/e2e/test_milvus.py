"""The index in Milvus, tried on Milvus Lite: the same client, without a server."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="of the extra [test]")
from pymilvus import DataType

from clip_common.embedding.items import Item
from clip_common.embedding.store import Store
from clip_common.errors import RequestError
from clip_common.search import milvus_index
from clip_common.search.file_index import FileIndex
from clip_common.search.hits import Filter
from clip_common.search.milvus_index import MilvusIndex
from clip_common.zero_shot.scoring import l2_normalize
from tests.support.stores import ORIGIN, random_rows, random_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return random_store(tmp_path / "vectors")


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "milvus.db")


def test_it_finds_what_a_file_finds(
    store: Store, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_index, "_INDEX_TYPE", "FLAT")  # others find most of the nearest
    index, file = MilvusIndex(address), FileIndex(str(tmp_path / "file"))
    assert index.sync(store) == file.sync(store)
    for query in l2_normalize(np.random.default_rng(5).normal(size=(5, 64)).astype(np.float32)):
        for limit_to in (
            Filter(),
            Filter("*/dogs_%/*", min_width=900, min_height=1000),
            Filter(min_score=0.25),
            Filter(without=frozenset([file.search(ORIGIN, query, 1)[0].path])),
        ):
            for threshold in (None, 0.2):
                found = index.search(ORIGIN, query, 10, limit_to, threshold)
                expected = file.search(ORIGIN, query, 10, limit_to, threshold)
                np.testing.assert_allclose(
                    [hit.score for hit in found], [hit.score for hit in expected], atol=1e-5
                )
                assert [dataclasses.replace(hit, score=0) for hit in found] == [
                    dataclasses.replace(hit, score=0) for hit in expected
                ]
    row = random_rows(1200)[7]
    name, vector = index.find(ORIGIN, row.item.path)
    assert name == row.item.path
    np.testing.assert_allclose(vector, row.vector, atol=1e-6)
    with pytest.raises(RequestError, match=r"--like x\.png: .* has no image with this path"):
        index.find(ORIGIN, "x.png")
    index.close()


def test_a_server_that_does_not_answer_is_not_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lets itself be connected to, and then says nothing more."""
    grpc = pytest.importorskip("grpc")
    milvus_pb2 = pytest.importorskip("pymilvus.grpc_gen.milvus_pb2")
    stopped = threading.Event()

    class Silent(grpc.GenericRpcHandler):  # type: ignore[name-defined]
        def service(self, call: Any) -> Any:
            def answer(_request: bytes, context: Any) -> bytes:
                if not call.method.endswith("/Connect"):
                    stopped.wait(120)
                return milvus_pb2.ConnectResponse().SerializeToString()

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Silent(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setattr(milvus_index, "_ANSWER", 0.5)
    said: list[str] = []

    def ask() -> None:
        index = MilvusIndex(f"http://127.0.0.1:{port}")
        for action in (lambda: index.require(ORIGIN), lambda: index.sync(store)):
            with pytest.raises(RequestError) as error:
                action()
            said.append(str(error.value))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(60)
    stopped.set()
    server.stop(None)
    assert [line.split(": ")[0].split(" ", 3)[3] for line in said] == [
        "cannot be searched",
        "cannot be written",
    ]


def test_only_what_changed_is_written(store: Store, address: str) -> None:
    index = MilvusIndex(address)
    index.sync(store)
    gone, changed = random_rows(1200)[3], random_rows(1200)[700]
    store.remove({gone.item.path, changed.item.path})
    moved = dataclasses.replace(changed.item, stamp="new")
    store.write_part(
        store.next_number(), [dataclasses.replace(changed, item=moved, vector=gone.vector)], ORIGIN
    )
    changes = index.sync(store)
    assert (changes.added, changes.removed, changes.kept) == (1, 1, 1198)
    index.close()
    index = MilvusIndex(address)  # another process
    assert dataclasses.astuple(index.sync(store)) == (0, 0, 1199, 0)
    best = index.search(ORIGIN, gone.vector, 2)
    assert best[0].path == changed.item.path
    assert best[0].score > 0.999 > best[1].score
    index.close()


def test_another_store_does_not_take_the_place_of_all(store: Store, address: str, tmp_path: Path) -> None:
    index = MilvusIndex(address)
    index.sync(store)
    other = Store(tmp_path / "others")
    rows = [dataclasses.replace(row, item=Item(f"{i}.jpg", "1")) for i, row in enumerate(random_rows(5))]
    rows[1].vector[0] = np.nan
    other.write_part(0, rows, ORIGIN)
    with pytest.raises(RequestError, match=r"none of its 1200 rows is in .*others; .* give --prune_all"):
        index.sync(other)
    assert dataclasses.astuple(index.sync(other, prune_all=True)) == (4, 1200, 0, 1)
    for root in ("here", "there"):  # they moved
        other.write_root(tmp_path / root)
        assert dataclasses.astuple(index.sync(other)) == (4, 0, 0, 1)
        assert index.search(ORIGIN, rows[0].vector, 1)[0].root == str(tmp_path / root)
    index.close()


def test_an_index_of_an_earlier_version_is_made_again(store: Store, address: str) -> None:
    index = MilvusIndex(address)
    collection = f"clip_hub__clip_mini__{ORIGIN.weights_sha256}"
    schema = index._client.create_schema()
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("stamp", DataType.VARCHAR, max_length=64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=64)
    parameters = index._client.prepare_index_params()
    parameters.add_index("vector", index_type="FLAT", metric_type="COSINE")
    index._client.create_collection(collection, schema=schema, index_params=parameters)
    assert dataclasses.astuple(index.sync(store)) == (1200, 0, 0, 0)
    assert index.search(ORIGIN, random_rows(1200)[5].vector, 1)[0].path == random_rows(1200)[5].item.path
    index.close()


def test_what_is_not_there_is_said(address: str, tmp_path: Path) -> None:
    index = MilvusIndex(address)
    with pytest.raises(RequestError, match="holds no embeddings: make them with `embed`"):
        index.sync(Store(tmp_path / "empty"))
    with pytest.raises(RequestError, match="holds no index of clip_mini with these weights"):
        index.require(ORIGIN)
    index.close()
