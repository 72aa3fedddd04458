"""What `embed` finds in its sources: everything once, or named."""

from __future__ import annotations

import os
import tarfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_common.embedding.items import Items, content_of
from clip_common.embedding.sources import items_of
from clip_common.errors import RequestError
from tests.support.stores import png, tar_of


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a few images."""
    monkeypatch.chdir(tmp_path)
    for name in ("dog", "cat", "car", "狗"):
        Path(f"{name}.png").write_bytes(png())
    return tmp_path


def captions(items: Items) -> dict[str, str | None]:
    return {item.path: item.caption for item in items}


# --- one row, one name ----------------------------------------------------------------------------------


def test_spellings_of_a_path_are_one_image(here: Path) -> None:
    Path("p").mkdir()
    Path("p/a.png").write_bytes(png())
    Path("list.txt").write_text("p/a.png\n./p/a.png\np/../p//a.png\n")
    spellings = ["p", "./p", f"{here}/p", "p/a.png", "../" + here.name + "/p/*.png", "list.txt"]
    items = items_of(spellings)
    assert [item.path for item in items] == ["p/a.png"]
    assert [item.path for item in items.with_root(here / "p")] == ["a.png"]
    assert [item.path for item in items.with_root(Path("/elsewhere"))] == [f"{here}/p/a.png"]


def test_a_tilde_is_a_letter_of_a_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("~x.png").write_bytes(png())
    monkeypatch.setenv("HOME", str(here))
    assert [item.path for item in items_of(["~x.png", "~/dog.png"])] == ["~x.png", "dog.png"]


def test_names_that_are_not_utf_8(here: Path) -> None:
    folder = os.fsencode(here / "odd")
    Path("odd").mkdir()
    for name in (b"a.png", b"caf\xe9.png", "照片.png".encode("gbk"), b"z\\xe9.png"):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(png())
    with tarfile.open("s.tar", "w") as tar:
        tar.add(os.fsdecode(folder + b"/caf\xe9.png"), os.fsdecode(b"caf\xe9.png"))
    items = list(items_of(["odd", "s.tar"]))
    assert [item.path for item in items] == [
        "odd/a.png", r"odd/caf\xe9.png", r"odd/z\\xe9.png", r"odd/\xd5\xd5Ƭ.png", r"s.tar::caf\xe9.png",
    ]  # fmt: skip
    for item in items:
        item.path.encode("utf-8")
        assert item.read() == content_of(item.path, str(here)) == png()


# --- nothing left out without a word --------------------------------------------------------------------


def test_nothing_found_is_an_error(here: Path) -> None:
    Path("empty").mkdir()
    Path("phone").mkdir()
    Path("phone/IMG_1.CR2").write_bytes(b"x")
    with pytest.raises(RequestError, match=r"^empty: no images in it that can be read$"):
        items_of(["empty"])
    with pytest.raises(RequestError, match=r"^phone: no images .*; skipped: 1 \.cr2$"):
        items_of(["phone"])
    Path("phone/0.tar").write_bytes(b"x")
    with pytest.raises(RequestError, match=r"1 \.tar; to read shards, give their names: 'phone/\*\.tar'$"):
        items_of(["phone"])
    items = items_of(["empty", "dog.png"])
    assert len(items) == 1 and [fault.hides for fault in items.faults] == [str(here / "empty")]
    assert len(items_of(["empty"], may_be_empty=True)) == 0


def test_what_a_glob_matches_beside_images_is_counted(here: Path) -> None:
    Path("d").mkdir()
    Path("d/a.png").write_bytes(png())
    Path("d/b.cr2").write_bytes(b"x")
    os.mkfifo("d/pipe.png")
    for pattern in ("d/*", "d/**", "d/**/*"):
        items = items_of([pattern])
        assert len(items) == 1 and items.summary() == "1 .cr2, 1 pipe or device"


def test_a_slash_at_the_end_of_a_glob_means_folders(here: Path) -> None:
    Path("t/d").mkdir(parents=True)
    for name in ("t/top.png", "t/d/in.png"):
        Path(name).write_bytes(png())
    Path("t/n.txt").write_text("nowhere.png\n")
    for pattern in ("t/*/", "t/**/*/"):
        assert [item.path for item in items_of([pattern])] == [item.path for item in items_of(["t/d"])]


@pytest.mark.parametrize("name", ["nowhere.png", "dog.png/x.png", "", "none/*.png", "x" * 300 + ".png"])
def test_what_is_not_there(here: Path, name: str) -> None:
    said = "cannot be reached .File name too long" if len(name) > 255 else "no such file or folder"
    with pytest.raises(RequestError, match=said):
        items_of([name])


def test_pipes_and_devices_are_not_waited_for(here: Path) -> None:
    os.mkfifo("pipe.png")
    for name in ("pipe.png", "/dev/null"):
        with pytest.raises(RequestError, match="is a pipe or a device, not a file"):
            items_of([name])
    Path("list.txt").write_text("pipe.png\n" + "x" * 300 + ".png\ndog.png\n")
    pipe, long, dog = items_of(["list.txt"])
    with pytest.raises(OSError, match="is a pipe or a device, not a file"):
        pipe.read()
    assert "File name too long" in (long.fault or "")
    assert dog.read() == png()


# --- tables ---------------------------------------------------------------------------------------------


def test_a_blank_text_costs_only_itself(here: Path) -> None:
    Path("texts.csv").write_text('caption\na dog\n" "\n\u200b\na cat\n')
    pq.write_table(pa.table({"text": ["", None, "a tree"]}), "texts.parquet")
    found = items_of(["texts.csv", "texts.parquet"])
    assert [item.path for item in found if item.fault is None] == [
        "texts.csv#0",
        "texts.csv#3",
        "texts.parquet#2",
    ]
    assert [item.fault for item in found if item.fault] == [
        f"{name}: the text is blank"
        for name in ("texts.csv#1", "texts.csv#2", "texts.parquet#0", "texts.parquet#1")
    ]
    Path("both.csv").write_text("path,caption\ndog.png,\n")  # an image needs no caption
    assert [item.fault for item in items_of(["both.csv"])] == [None]


def test_texts_stay_texts(here: Path) -> None:
    for name in ("001", "002"):
        Path(name).write_bytes(png())
    Path("ids.csv").write_text("path,caption\n001,7\n002,2020-01-01\n")
    assert captions(items_of(["ids.csv"])) == {"001": "7", "002": "2020-01-01"}
    Path("texts.csv").write_text("caption\n2012\ntrue\n0.50\n")
    assert captions(items_of(["texts.csv"])) == {
        "texts.csv#0": "2012", "texts.csv#1": "true", "texts.csv#2": "0.50",
    }  # fmt: skip
    days = pa.table({"path": ["dog.png", "cat.png"], "caption": [date(2020, 1, 1), None]})
    pq.write_table(days, "days.parquet")
    assert captions(items_of(["days.parquet"])) == {"dog.png": "2020-01-01", "cat.png": ""}


def test_all_captions_of_an_image_are_kept(here: Path) -> None:
    Path("coco.csv").write_text(
        "path,caption\ndog.png,a dog\ncat.png,a cat\ndog.png,an animal\ndog.png,a dog\n"
    )
    lists = pa.table({"image": ["dog.png"], "text": [["a dog", "brown"]]})
    pq.write_table(lists, "lists.parquet")
    found = captions(items_of([".", "coco.csv", "lists.parquet"]))
    expected = {"dog.png": "a dog\nan animal\nbrown", "cat.png": "a cat", "car.png": None, "狗.png": None}
    assert found == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.CSV", "path,caption\n狗.png,一只狗\n".encode("gbk")),
        ("t.csv", "\ufeffpath, caption\n狗.png, 一只狗\n".encode()),
        ("t.TSV", "path\tcaption\n狗.png\t一只狗\n".encode("utf-16")),
        ("list.TXT", "狗.png\n".encode("gbk")),
        ("list.txt", "狗.png\0".encode()),
    ],
)
def test_tables_and_lists_as_people_write_them(here: Path, name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    (item,) = items_of([name])
    assert item.path == "狗.png" and item.fault is None
    assert item.caption == (None if name.lower().endswith("txt") else "一只狗")


def test_images_in_parquet(here: Path) -> None:
    images: list[Any] = [{"bytes": png(colour), "path": "x.png"} for colour in ("red", "green", "blue")]
    images += [{"bytes": None, "path": "dog.png"}, None]
    table = pa.table({"hash": [b"1"] * 5, "image": images, "caption": list("abcde")})
    pq.write_table(table, "hf.parquet", row_group_size=2)
    pq.write_table(pa.table({"image": [png("red")]}), "plain.parquet")
    items = list(items_of(["hf.parquet", "plain.parquet"]))
    assert [item.path for item in items] == [*(f"hf.parquet#{row}" for row in range(5)), "plain.parquet#0"]
    assert [item.caption for item in items] == [*"abcde", None]
    contents = [item.read() for item in items if item.path != "hf.parquet#4"]
    assert contents == [png("red"), png("green"), png("blue"), png(), png("red")]
    with pytest.raises(ValueError, match="has no image"):
        items[4].read()
    assert content_of("hf.parquet#1", str(here)) == png("green")


def test_a_damaged_table_costs_itself(here: Path) -> None:
    Path("bad.csv").write_text('path,caption\ndog.png,"a dog\ncat.png,a cat\n')
    Path("holes.csv").write_text("path,caption\n,nothing\ncat.png,a cat\n")
    items = items_of(["bad.csv", "holes.csv"])
    assert list(captions(items)) == ["cat.png"]
    messages = [fault.message for fault in items.faults]
    assert messages[0].startswith("bad.csv, line 2: cannot be read as a table")
    assert messages[1] == "holes.csv, line 2: no path"


# --- shards ---------------------------------------------------------------------------------------------


def write_tar(path: str, members: list[tuple[str, bytes]]) -> bytes:
    Path(path).write_bytes(tar_of(members))
    return Path(path).read_bytes()


def six() -> list[tuple[str, bytes]]:
    return [
        (f"{i}.{suffix}", content) for i in range(6) for suffix, content in (("png", png()), ("txt", b"x"))
    ]


def test_a_shard_is_whole_or_named(here: Path) -> None:
    whole = write_tar("good.tar", six())
    with tarfile.open("good.tar") as tar:
        member = tar.getmembers()[5]
    end = member.offset_data + 512
    rng = np.random.default_rng(0)
    broken = {
        "half": whole[: len(whole) // 2],
        "at_a_member": whole[:end],
        "in_a_header": whole[: end + 100],
        "in_the_data": whole[: end + 512 + 100],
        "garbled": whole[: member.offset] + b"\xff" * 100 + whole[member.offset + 100 :],
        "noise": whole[:end] + rng.bytes(512) + whole[end + 512 :],
        "joined": whole + whole,
        "empty": b"",
        "html": b"<html>" * 200,
        "gzip": b"\x1f\x8b" + whole[2:],
    }
    for name, content in broken.items():
        Path(f"{name}.tar").write_bytes(content)
        with pytest.raises(RequestError, match=f"^{name}.tar: not a complete, uncompressed tar file"):
            items_of([f"{name}.tar"])
    items = items_of(["*.tar"])
    assert len(items) == 6 and all(item.path.startswith("good.tar::") for item in items)
    assert {fault.hides for fault in items.faults} == {str(here / f"{name}.tar") for name in broken}


def test_any_cut_and_any_garbled_header_is_found(here: Path) -> None:
    whole = write_tar("good.tar", six())
    end = whole.rstrip(b"\0")
    for cut in range(0, len(end), 700):
        Path("cut.tar").write_bytes(whole[:cut])
        with pytest.raises(RequestError):
            items_of(["cut.tar"])
    with tarfile.open("good.tar") as tar:
        offsets = [member.offset for member in tar]
    for offset in offsets:
        for place in (0, 130, 150, 300):
            garbled = bytearray(whole)
            garbled[offset + place] ^= 0x55
            Path("garbled.tar").write_bytes(garbled)
            with pytest.raises(RequestError):
                items_of(["garbled.tar"])


def test_members_as_people_name_them(here: Path) -> None:
    members = [
        ("a.PNG", png()), ("a.TXT", b"DOG"), ("./b.png", png()), ("./b.txt", "狗和猫".encode("gbk")),
        ("c", png()), ("c.txt", b"\xef\xbb\xbfcat"), ("._a.PNG", b"x"), ("d.cr2", b"x"), ("d.png", png()),
        ("d.png", png("blue")),
    ]  # fmt: skip
    write_tar("UPPER.TAR", members)
    items = items_of(["UPPER.TAR"])
    assert captions(items) == {
        "UPPER.TAR::a.PNG": "DOG", "UPPER.TAR::./b.png": "狗和猫", "UPPER.TAR::c": "cat",
        "UPPER.TAR::d.png": "",
    }  # fmt: skip
    assert items.summary() == "1 ._* (macOS), 1 .cr2, 1 with the same name as a later file in the shard"
    assert (
        items.by_path["UPPER.TAR::d.png"].read() == png("blue") == content_of("UPPER.TAR::d.png", str(here))
    )


# --- stamps ---------------------------------------------------------------------------------------------


def test_stamps_follow_content_and_caption(here: Path) -> None:
    def stamp(source: str) -> str:
        return next(iter(items_of([source]))).recorded_stamp()

    Path("t.csv").write_text("path,caption\ndog.png,before\n")
    first, status = stamp("t.csv"), Path("dog.png").stat()
    assert stamp("t.csv") == first
    Path("t.csv").write_text("path,caption\ndog.png,AFTER\n")
    second = stamp("t.csv")
    assert second != first
    Path("dog.png").write_bytes(bytes(len(png())))  # as long as before, at the same time
    os.utime("dog.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert Path("dog.png").stat().st_size == status.st_size and stamp("t.csv") != second
    write_tar("s.tar", [("a.png", png())])
    before, status = stamp("s.tar"), Path("s.tar").stat()
    time.sleep(0.05)  # a file system's clock ticks in milliseconds
    write_tar("s.tar", [("a.png", bytes(len(png())))])
    os.utime("s.tar", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert Path("s.tar").stat().st_size == status.st_size and stamp("s.tar") != before
