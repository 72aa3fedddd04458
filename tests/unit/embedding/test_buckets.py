"""`embed` from and to an S3 server: moto, on this machine."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moto", reason="of the extra [test]")

import boto3

from clip_common.cli.main import main
from clip_common.embedding import bucket_services, buckets
from clip_common.embedding.items import content_of
from clip_common.embedding.sources import items_of
from clip_common.embedding.store import Store
from clip_common.errors import RequestError
from clip_common.search.index import open_index
from tests.support.refusals import refused
from tests.support.s3_server import S3Server, never
from tests.support.stores import JOB, contents, png, run, tar_of

VECTORS = "s3://vectors/of/photos"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    made = S3Server()
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "")  # what is set by the way ends with the test
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION")
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    yield made
    made.stop()


@pytest.fixture
def s3(server: S3Server) -> Any:
    """Two buckets, `photos` with images and other things, and `vectors`."""
    client = boto3.client("s3", endpoint_url=server.address, region_name="us-east-1")
    for bucket in ("photos", "vectors"):
        client.create_bucket(Bucket=bucket)
    for number in range(20):
        put(client, f"all/{number % 3}/{number:02d}.png", png((number * 9, 90, 20)))
    put(client, "all/broken.png", b"no image")
    return client


def put(client: Any, key: str, content: bytes) -> None:
    client.put_object(Bucket="photos", Key=key, Body=content)


def keys(client: Any, bucket: str) -> list[str]:
    """Those of objects; a key that ends in a slash is the library's mark of a folder."""
    found = [one["Key"] for one in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
    return [key for key in found if not key.endswith("/")]


def test_from_a_bucket_to_a_bucket(s3: Any, server: S3Server, tmp_path: Path) -> None:
    report = run("s3://photos/all", VECTORS)
    assert (report.embedded, report.failed) == (20, 1)
    found = contents(VECTORS)
    assert sorted(found) == sorted(f"s3://photos/all/{n % 3}/{n:02d}.png" for n in range(20))
    assert keys(s3, "vectors") == [
        f"of/photos/{name}"
        for name in ("errors.parquet", *(f"part-00000{number}.parquet" for number in range(3)), "root")
    ]
    listings = [what for what in server.requests if what.startswith("GET /photos?")]
    assert len(listings) <= 2  # what is there, and all that is below: none for each object
    server.requests.clear()
    again = run("s3://photos/all", VECTORS)
    assert (again.embedded, again.known, again.failed_before) == (0, 20, 1)
    assert not [what for what in server.requests if what.startswith("GET /photos/")]  # nothing is read again


def test_uploads_are_in_one_piece_as_every_service_takes_them(s3: Any, server: S3Server) -> None:
    run("s3://photos/all", VECTORS)
    assert server.encodings == {""}


def test_only_what_changed_is_embedded(s3: Any, server: S3Server, tmp_path: Path) -> None:
    run("s3://photos/all", tmp_path / "out")
    put(s3, "all/0/00.png", png("blue") + b" ")
    put(s3, "all/new.png", png("green"))
    s3.delete_object(Bucket="photos", Key="all/1/01.png")
    report = run("s3://photos/all/", tmp_path / "out", prune=True)
    assert (report.embedded, report.known, report.removed) == (2, 18, 2)
    assert "s3://photos/all/1/01.png" not in contents(tmp_path / "out")


def test_keys_as_people_choose_them(s3: Any, tmp_path: Path) -> None:
    names = ["狗 1.png", "per%20cent.png", "a?x=1.PNG", "b#c.png", "d::e.png"]
    for name in names:
        put(s3, f"odd/{name}", png())
    put(s3, "odd/folder/", b"")
    put(s3, "odd/._1.png", b"x")
    put(s3, "odd/notes.md", b"x")
    put(s3, "odd/empty.png", b"")
    put(s3, "odd//double.png", png("blue"))
    put(s3, "odd/../up.png", png("blue"))
    items = items_of(["s3://photos/odd"])
    assert items.summary() == "1 ._* (macOS), 1 .md"
    report = run("s3://photos/odd", tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {f"s3://photos/odd/{name}" for name in names}
    reasons = {path: reason for path, (_, reason) in Store(tmp_path / "out").errors().items()}
    assert report.failed == 3
    assert "is empty" in reasons.pop("s3://photos/odd/empty.png")
    assert all("a key with an empty part, . or .. between slashes" in reason for reason in reasons.values())
    assert content_of("s3://photos/odd/a?x=1.PNG", "/root") == png()


def test_what_is_not_there_is_said(s3: Any, server: S3Server, tmp_path: Path) -> None:
    server.fails = lambda what: "/locked" in what
    server.error = ("403 Forbidden", "AccessDenied")
    for source, words in (
        ("s3://photos/none", "s3://photos/none: there is no such object, and nothing below it"),
        ("s3://no-such-bucket", r"no-such-bucket: cannot be listed \(there is no such bucket"),
        ("s3://a b/x", "'a b' is not a bucket name"),
        ("s3://", "'' is not a bucket name"),
        ("s3://me:secret@photos/all", r"^s3://photos/all: the address contains credentials"),
        ("s3://photos/x.png?sig=secret", r"^s3://photos/x.png: the address contains credentials"),
        ("s3:/me:secret@photos/all", r"^s3:/\*\*\*@photos/all: no such file or folder"),
        ("s3://locked-bucket/x", r"cannot be listed \(access denied"),
        ("s3://photos/../other/x", "a key with an empty part, . or .. between slashes"),
        ("oss://photos/all", "addresses begin with s3://, gs:// or https://"),
        ("https://photos.example/list.txt", "copy it to this machine"),
        ("s3://photos/all/0/00.png/x", "there is no such object, and nothing below it"),
    ):
        with pytest.raises(RequestError, match=words) as raised:
            run(source, tmp_path / "out")
        assert "secret" not in str(raised.value)


def test_a_bucket_that_is_busy_now_and_then_costs_nothing(s3: Any, server: S3Server) -> None:
    server.fails = lambda _: len(server.requests) % 4 == 0
    report = run("s3://photos/all", VECTORS)
    assert (report.embedded, report.failed) == (20, 1)
    assert len(contents(VECTORS)) == 20


def test_an_object_that_cannot_be_had_costs_itself(s3: Any, server: S3Server, tmp_path: Path) -> None:
    server.error = ("403 Forbidden", "AccessDenied")
    server.fails = lambda what: "/00.png?" in what
    report = run("s3://photos/all", tmp_path / "out")
    assert (report.embedded, report.failed) == (19, 2)
    assert (
        "00.png: cannot be read (access denied"
        in Store(tmp_path / "out").errors()["s3://photos/all/0/00.png"][1]
    )
    server.fails = never
    assert run("s3://photos/all", tmp_path / "out").embedded == 1  # it is tried again


def test_an_image_that_is_too_large_is_not_read(
    s3: Any, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "MOST_BYTES", 1000)
    put(s3, "all/large.png", bytes(1001))
    run("s3://photos/all", tmp_path / "out")
    assert (
        "has 1,001 bytes, at most 1,000 are allowed"
        in Store(tmp_path / "out").errors()["s3://photos/all/large.png"][1]
    )
    assert "GET /photos/all/large.png?" not in server.requests


def test_addresses_in_a_list(s3: Any, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_bytes(
        b'\xef\xbb\xbfs3://photos/all/0/00.png\r\n\r\n"s3://photos/all/1/01.png"\r\n'
        b"s3://photos/all/0/00.png\r\ns3://photos/gone.png\r\ns3://a b/x\r\ns3://k:secret@b2/x\r\ns3://\r\n"
        b"s3://b3/x.png?X-Amz-Signature=secret\r\nhttps:/me:secret@host/x.png?sig=secret\r\n"
    )
    report = run(listed, tmp_path / "out")
    assert (report.embedded, report.failed) == (2, 6)
    errors = Store(tmp_path / "out").errors()
    assert {stamp for stamp, _ in errors.values()} == {""}
    reasons = [reason for _, reason in errors.values()]
    assert "s3://photos/gone.png: cannot be read (there is no such object)" in reasons
    assert sum("is not a bucket name" in reason for reason in reasons) == 2
    assert "secret" not in str(errors)


def test_shards_in_a_bucket(s3: Any, server: S3Server, tmp_path: Path) -> None:
    for shard in range(3):
        images = {f"{shard}/{n}.png": png((shard * 80, n * 9, 7)) for n in range(5)}
        put(
            s3,
            f"shards/{shard:05d}.tar",
            tar_of({**images, f"{shard}/3.txt": b"three", "x.json": b"{}"}.items()),
        )
    put(s3, "shards/cut.tar", tar_of({"a.png": png()}.items())[:600])
    put(s3, "shards/notes.md", b"x")
    items = items_of(["s3://photos/shards/0*.tar"])
    assert items.summary() == "3 .json" and not items.faults
    assert sum(what.startswith("GET /photos/shards/") for what in server.requests) == 3  # one a shard
    store = Store(tmp_path / "out")
    report = run("s3://photos/shards/*", tmp_path / "out")
    assert (report.embedded, report.failed) == (15, 0) and not report.complete
    assert [fault.split(" (")[0] for fault in report.faults] == [
        "s3://photos/shards/cut.tar: not a complete, uncompressed tar file"
    ]
    found = contents(tmp_path / "out")
    assert sorted(found)[:2] == [f"s3://photos/shards/00000.tar::0/{n}.png" for n in range(2)]
    captions = [row["caption"] for table in store.tables() for row in table.to_pylist()]
    assert captions.count("three") == 3
    assert content_of("s3://photos/shards/00001.tar::1/2.png", "/root") == png((80, 18, 7))
    expected = run_on_this_machine(s3, tmp_path)
    assert all((found[f"s3://photos/shards/{name}"] == vector).all() for name, vector in expected.items())

    put(s3, "shards/00002.tar", tar_of({"2/0.png": png("blue"), "2/9.png": png("red")}.items()))
    again = run("s3://photos/shards/0*.tar", tmp_path / "out", prune=True)
    assert (again.embedded, again.known, again.removed) == (2, 10, 5)


def run_on_this_machine(s3: Any, tmp_path: Path) -> dict[str, Any]:
    """The embeddings of the same shards as files, by the file and the image in it."""
    folder = tmp_path / "copies"
    folder.mkdir()
    for shard in range(3):
        content = s3.get_object(Bucket="photos", Key=f"shards/{shard:05d}.tar")["Body"].read()
        (folder / f"{shard:05d}.tar").write_bytes(content)
    run(str(folder / "*.tar"), tmp_path / "of_files")
    found = contents(tmp_path / "of_files")
    return {path.rpartition("/copies/")[2]: vector for path, vector in found.items()}


def test_a_shard_in_a_bucket_survives_a_busy_service(s3: Any, server: S3Server, tmp_path: Path) -> None:
    put(s3, "a.tar", tar_of({f"{n}.png": png((n, n, n)) for n in range(30)}.items()))
    answers = itertools.cycle([False, False, False, False, True])
    server.fails = lambda _what: next(answers)
    assert run("s3://photos/a.tar", tmp_path / "out").embedded == 30
    server.fails = lambda what: "a.tar" in what and what.startswith("GET")
    report = run(["s3://photos/all", "s3://photos/a.tar"], tmp_path / "out", prune=True)
    assert report.kept == 30 and len(contents(tmp_path / "out")) == 50  # what cannot be read may hold them


def test_globs_in_a_bucket(s3: Any, capsys: Any) -> None:
    put(s3, "all/what[1].png", png())
    put(s3, "all/狗.png", png())
    for pattern, count in (
        ("all/*/0?.png", 10),
        ("all/*.png", 3),
        ("all/[0-1]/*", 14),
        ("all/what[1].png", 1),
        ("*/狗.png", 1),
    ):
        assert len(items_of([f"s3://photos/{pattern}"])) == count, pattern
    for pattern in ("all/*.gif", "none/*.tar", "al[l/0/00.png"):
        with pytest.raises(RequestError, match="there is no such object"):
            items_of([f"s3://photos/{pattern}"])
    with pytest.raises(RequestError, match="is not a bucket name"):
        items_of(["s3://pho*/x"])


def test_a_store_in_a_bucket_is_read_as_any_other(s3: Any, tmp_path: Path, capsys: Any) -> None:
    run("s3://photos/all", VECTORS)
    index = open_index(str(tmp_path / "x.db"))
    assert index.sync(Store(VECTORS)).added == 20
    index.close()
    assert main(["duplicates", VECTORS]) == 0
    assert "s3://photos/all/0/00.png" in capsys.readouterr().out
    said = refused(capsys, "index", "s3://vectors/none", "--index", str(tmp_path / "y.db"))
    assert said == "clip-hub index: s3://vectors/none holds no embeddings: make them with `embed`\n"


def test_a_part_that_cannot_be_read_now_is_not_called_damaged(s3: Any, server: S3Server) -> None:
    run("s3://photos/all", VECTORS)
    server.error = ("403 Forbidden", "AccessDenied")
    server.fails = lambda what: "part-000001" in what
    with pytest.raises(RequestError, match=r"part-000001.parquet cannot be read \(access denied"):
        Store(VECTORS).known()
    server.fails = never
    key = "of/photos/part-000001.parquet"
    part = s3.get_object(Bucket="vectors", Key=key)["Body"].read()
    s3.put_object(Bucket="vectors", Key=key, Body=part[:200])
    with pytest.raises(RequestError, match=r"part-000001.parquet is damaged"):
        Store(VECTORS).known()


def test_where_nothing_can_be_written_is_known_before_the_model_is_loaded(
    s3: Any, server: S3Server, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(type(JOB), "predictor", None)
    server.error = ("403 Forbidden", "AccessDenied")
    server.fails = lambda what: what.split()[0] in ("PUT", "POST")
    said = refused(capsys, "embed", "s3://photos/all", "--output", VECTORS)
    assert f"{VECTORS} cannot be written (access denied" in said
    server.fails = never
    said = refused(capsys, "embed", "s3://photos/all", "--output", "s3://no-such-bucket/x")
    assert "s3://no-such-bucket/x cannot be written (there is no such bucket)" in said
    for address in ("https://me:secret@example.com/x", "oss://b/x"):
        said = refused(capsys, "embed", "s3://photos/all", "--output", address)
        assert (
            "embeddings can only be stored in a folder, at s3:// or at gs://" in said and "secret" not in said
        )
    for address in ("s3://", "s3://vec tors/x", "s3://vectors/a/../b"):
        assert address in refused(capsys, "embed", "s3://photos/all", "--output", address)
        assert address in refused(capsys, "index", address, "--index", "x.db")
    said = refused(capsys, "duplicates", VECTORS, "--output_dir", "s3://vectors/sheet")
    assert "only `embed` writes to addresses" in said
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_the_first_stops(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Store(VECTORS)
    with first.held():
        first.write_root(Path("/"))
        report = run("s3://photos/all", VECTORS)
        assert report.embedded == 20
        with pytest.raises(RequestError, match="another process is writing there"):
            first.write_root(Path("/"))
    assert len(contents(VECTORS)) == 20


def test_prune_keeps_what_a_listing_did_not_show(s3: Any, server: S3Server, tmp_path: Path) -> None:
    run("s3://photos/all", tmp_path / "out")
    put(s3, "more/a.png", png())
    server.error = ("403 Forbidden", "AccessDenied")
    server.fails = lambda what: "prefix=all" in what or "/photos/all?" in what
    report = run(["s3://photos/all", "s3://photos/more"], tmp_path / "out", prune=True)
    assert (report.embedded, report.removed, report.kept) == (1, 0, 21)
    assert not report.complete


def test_what_reads_no_addresses_loads_nothing_for_them(tmp_path: Path) -> None:
    """The HTTP door among it, which fetches nothing."""
    code = (
        "import sys, clip_common.embedding.embed, clip_common.search.finder, clip_common.cli.embed;"
        "clients = [f'clip_common.embedding.{name}' for name in ('web', 'buckets', 'bucket_services')];"
        "sys.exit(any(name in sys.modules for name in clients))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


def test_an_endpoint_that_is_none_is_named(
    s3: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    for given in ("not a host", "ftp://host", "https://me:secret@host", "https://host/path"):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", given)
        bucket_services._system.cache_clear()
        said = refused(capsys, "embed", "s3://photos/all", "--output", str(tmp_path / "out"))
        assert "AWS_ENDPOINT_URL_S3 is" in said and "expected https://HOST" in said and "secret" not in said


@pytest.mark.parametrize(
    ("source", "variable"),
    [("s3://photos/all", "AWS_ENDPOINT_URL_S3"), ("gs://photos/all", "STORAGE_EMULATOR_HOST")],
)
def test_a_service_that_cannot_be_reached_is_named(
    source: str, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    code = {"s3": "AWS Error NETWORK_CONNECTION", "gs": "google::cloud::Status(UNAVAILABLE: )"}[source[:2]]
    monkeypatch.setattr(bucket_services, "_ATTEMPTS", 1)
    monkeypatch.setattr(bucket_services, "_system", lambda *_: NobodyThere(code))
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    argv = ("embed", source, "--output", str(tmp_path / "out"))
    assert (
        f"the service cannot be reached: {variable} is http://127.0.0.1:9; check that it is right, and that "
        "a server answers there"
    ) in refused(capsys, *argv)
    monkeypatch.delenv(variable)
    said = refused(capsys, *argv)
    assert ("Amazon S3 was asked" if source[:2] == "s3" else "Google Cloud Storage was asked") in said
    assert f"or set {variable.removesuffix('_S3')} to the service that is meant" in said


class NobodyThere:
    def __init__(self, message: str) -> None:
        self.message = message

    def get_file_info(self, _: Any) -> Any:
        raise OSError(self.message)
