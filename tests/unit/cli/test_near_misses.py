"""An index where embeddings are meant, and the other way round: what is said has the command that helps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clip_common.cli import serve
from clip_common.cli.main import main
from clip_common.search.file_index import FileIndex
from tests.support.paths import EXAMPLES
from tests.support.refusals import refused
from tests.support.stores import random_store


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings in `my vectors`, and an index of them."""
    monkeypatch.chdir(tmp_path)
    FileIndex("photos.db").sync(random_store(tmp_path / "my vectors", 20))


@pytest.mark.parametrize("argv", [["search", "dog"], ["index", "my vectors"]])
@pytest.mark.parametrize("given", ["my vectors", "my vectors/", "./my vectors"])
def test_embeddings_as_an_index(
    argv: list[str], given: str, places: None, capsys: pytest.CaptureFixture[str]
) -> None:
    index = f"{given.rstrip('/')}.db"
    assert refused(capsys, *argv, "--index", given) == (
        f"clip-hub {argv[0]}: {given} holds embeddings, not an index: run `clip-hub index '{given}' --index "
        f"'{index}'` and give {index} as the index\n"
    )
    assert main(["index", given, "--index", index]) == 0


def test_embeddings_in_a_bucket_as_an_index(capsys: pytest.CaptureFixture[str]) -> None:
    assert "run `clip-hub index s3://vectors/all --index all.db` and give all.db" in refused(
        capsys, "search", "dog", "--index", "s3://vectors/all"
    )


def test_embeddings_as_the_index_of_a_server(
    places: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "require_package", lambda *_: None)
    monkeypatch.setitem(sys.modules, "clip_common.server.run", None)  # nothing starts
    monkeypatch.setenv("CLIP_HUB_INDEX", "my vectors")
    said = refused(capsys, "serve", "clip_mini", "--port", "0")
    assert "run `clip-hub index 'my vectors' --index 'my vectors.db'`" in said


@pytest.mark.parametrize(
    "argv",
    [["index", "photos.db", "--index", "other.db"], ["duplicates", "photos.db"], ["clusters", "photos.db"]],
)
def test_an_index_as_embeddings(argv: list[str], places: None, capsys: pytest.CaptureFixture[str]) -> None:
    if argv[0] == "clusters":
        pytest.importorskip("sklearn")
    assert refused(capsys, *argv) == (
        f"clip-hub {argv[0]}: photos.db is an index, not embeddings: give the folder that it was made from, "
        "or search it with `clip-hub search WORDS --index photos.db`\n"
    )
    assert not Path("other.db").exists()


def test_a_part_as_embeddings(places: None, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "duplicates", "my vectors/part-000000.parquet")
    assert said.endswith("is one part of the embeddings: give its folder, my vectors\n")


def test_an_index_as_the_output(places: None, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("photos.db").read_bytes()
    said = refused(capsys, "embed", str(EXAMPLES / "dog.png"), "--output", "photos.db")
    assert "--output: photos.db is an index: give the folder of embeddings that it was made from" in said
    assert "`clip-hub index FOLDER --index photos.db`" in said
    assert Path("photos.db").read_bytes() == before
