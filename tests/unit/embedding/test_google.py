"""`embed` from and to Google's object storage; a server on this machine answers in its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_common.embedding import bucket_services, buckets
from clip_common.embedding.items import content_of
from clip_common.embedding.sources import items_of
from clip_common.errors import ImageError, RequestError
from tests.support.google_server import GoogleServer
from tests.support.stores import contents, png, run, tar_of


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleServer]:
    server = GoogleServer()
    bucket_services._system.cache_clear()  # it knows the servers of earlier tests
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    for number in range(8):
        server.put(f"all/{number % 2}/狗 {number}.png", png((number * 30, 9, 9)))
    server.put("all/broken.png", b"no image")
    server.put("all/notes.md", b"x")
    yield server
    server.stop()


def test_from_a_bucket_to_a_bucket(google: GoogleServer) -> None:
    output = "gs://photos/vectors"
    report = run("gs://photos/all", output)
    assert (report.embedded, report.failed) == (8, 1)
    assert sorted(contents(output)) == sorted(f"gs://photos/all/{n % 2}/狗 {n}.png" for n in range(8))
    assert buckets.names_in(output) == [
        "errors.parquet",
        "part-000000.parquet",
        "part-000001.parquet",
        "root",
    ]
    google.put("all/0/狗 0.png", png("blue"))
    google.delete("all/1/狗 1.png")
    google.taken_requests()
    again = run("gs://photos/all", output, prune=True)
    assert (again.embedded, again.known, again.removed, again.failed_before) == (1, 6, 2, 1)
    read = {what for what in google.taken_requests() if "/o/all%2F" in what}
    assert len(read) == 1 and "alt=media" in read.pop()  # only what changed, without asking what it is
    assert content_of("gs://photos/all/0/狗 0.png", "/root") == png("blue")


def test_a_shard(google: GoogleServer, tmp_path: Path) -> None:
    images = ((f"{number}.png", png((number, 1, 1))) for number in range(5))
    google.put("shards/0.tar", tar_of(images))
    with pytest.raises(
        RequestError, match=r"skipped: 1 \.tar; .* give their names: 'gs://photos/shards/\*\.tar'"
    ):
        items_of(["gs://photos/shards/"])
    assert run("gs://photos/shards/*.tar", tmp_path / "out").embedded == 5
    assert content_of("gs://photos/shards/0.tar::3.png", "/root") == png((3, 1, 1))


def test_a_service_that_is_busy_now_and_then_costs_nothing(google: GoogleServer, tmp_path: Path) -> None:
    google.fail_every(4)
    assert run("gs://photos/all", tmp_path / "out").embedded == 8


def test_an_image_that_is_too_large_is_not_read(
    google: GoogleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    google.put("large.png", png() + bytes(3 << 20))
    monkeypatch.setattr(buckets, "MOST_BYTES", 1 << 20)
    with pytest.raises(ImageError, match=r"large.png: has .* bytes, at most 1,048,576 are allowed"):
        buckets.read("gs://photos/large.png")


def test_what_is_not_there_is_said(google: GoogleServer) -> None:
    with pytest.raises(RequestError, match="there is no such object, and nothing below it"):
        items_of(["gs://photos/none"])
    with pytest.raises(RequestError, match="no-bucket"):
        items_of(["gs://no-bucket/x"])
