"""Lists, tables, labels and classes as people write them: one reader, and nothing lost without a word."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from clip_common.errors import RequestError
from clip_common.system.text_files import read_list, read_names, read_table

CHINESE = "一只狗\n两只猫\n"
ENCODINGS = ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16", "utf-32"])
def test_names_in_every_encoding(encoding: str, tmp_path: Path) -> None:
    assert read_names(write(tmp_path / "labels.txt", CHINESE, encoding), "labels") == ["一只狗", "两只猫"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_mixed_text_in_every_encoding(encoding: str, end: str, tmp_path: Path) -> None:
    text = end.join(["a dog", "", "  a cat ", "一只狗在草地上", ""])
    path = write(tmp_path / "labels.TXT", text, encoding)
    assert read_names(path, "labels") == ["a dog", "a cat", "一只狗在草地上"]


def test_what_is_no_utf_8_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_names(write(tmp_path / "labels.txt", CHINESE, "gbk"), "labels")
    assert "labels.txt is not UTF-8: read as GB18030" in caplog.text
    for text, encoding in (("a cat\ncafés\n", "latin-1"), ("naïve\n", "latin-1"), ("犬\n猫\n", "shift-jis")):
        path = write(tmp_path / "other.txt", text, encoding)
        with pytest.raises(RequestError, match=r"other\.txt, line \d: neither .* save it as UTF-8"):
            read_names(path, "labels")


def test_no_names_are_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"empty\.txt: has no classes, expected one per line"):
        read_names(write(tmp_path / "empty.txt", " \n\n"), "classes")
    with pytest.raises(RequestError, match=r"missing\.txt: cannot be read \(No such file"):
        read_names(tmp_path / "missing.txt", "classes")


# --- lists ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "utf-16", "utf-32"])
def test_lists_in_every_encoding(encoding: str, tmp_path: Path) -> None:
    path = write(tmp_path / "list.txt", "狗的照片.png\r\ncat.png\r\n", encoding)
    assert read_list(path) == ["狗的照片.png", "cat.png"]


def test_what_find_prints(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("./a dog.png\0./two\nlines.png\0./狗.png\0".encode())
    assert read_list(path) == ["./a dog.png", "./two\nlines.png", "./狗.png"]


def test_a_name_that_is_not_utf_8_costs_nothing(tmp_path: Path) -> None:
    names = [b"caf\xe9.png", "狗.png".encode(), b"plain.png"]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    path = tmp_path / "list.txt"
    path.write_bytes(b"\n".join(names))
    assert [os.fsencode(name) for name in read_list(path)] == names


def test_only_line_ends_end_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "list.txt", "a\u2028b\x85c\x0bd.png\n")
    assert read_list(path) == ["a\u2028b\x85c\x0bd.png"]


def test_quotes_and_blanks_count_where_such_a_file_is(tmp_path: Path) -> None:
    for name in ('"really quoted".png', " blank.png", "dog.png", "cat.png"):
        (tmp_path / name).touch()
    path = write(
        tmp_path / "list.txt", '"really quoted".png\n blank.png\n"dog.png"\n  cat.png  \n"none.png"\n'
    )
    assert read_list(path) == ['"really quoted".png', " blank.png", "dog.png", "cat.png", '"none.png"']


# --- tables ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "utf-16", "utf-32"])
@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("CSV", ";"), ("csv", "\t"), ("tsv", "\t")])
def test_tables_in_every_encoding(encoding: str, suffix: str, separator: str, tmp_path: Path) -> None:
    text = "Path|标题 \n001|一只狗\n2.50|2020-01-01\nTrue|\n".replace("|", separator)
    table = read_table(write(tmp_path / f"table.{suffix}", text, encoding))
    assert table.columns == ["Path", "标题"]
    assert table.rows == [["001", "一只狗"], ["2.50", "2020-01-01"], ["True", ""]]
    assert table.lines == [2, 3, 4]
    assert (table.place(["file", "path"]), table.place(["caption"])) == (0, None)


def test_blanks_behind_separators(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", 'path, caption\na.png, "one, two"\n'))
    assert (table.columns, table.rows) == (["path", "caption"], [["a.png", "one, two"]])


def test_quoted_fields(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = 'path,caption\na.png,"says ""hello"", twice"\n\nb.png,"on two\nlines"\nc.png,plain\n'
    with caplog.at_level(logging.WARNING):
        table = read_table(write(tmp_path / "t.csv", text))
    assert [row[1] for row in table.rows] == ['says "hello", twice', "on two\nlines", "plain"]
    assert table.lines == [2, 4, 6]
    assert "t.csv: 1 row runs over several lines, the first at line 4" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('path,caption\na.png,"what a dog\nb.png,a cat\n', r"t\.csv, line 2: cannot be read as a table"),
        ('path,caption\na.png,x\nb.png,"tree" house\nc.png,y\n', "line 3: .* double quote"),
        ("path,caption\na.png,a dog, brown\n", "line 2: 3 fields, and the first line has 2"),
        ("path,caption\na.png\n", "line 2: 1 field, and the first line has 2"),
        ("path,caption\na.png," + "x" * 200_000 + "\n", "line 2: cannot be read as a table"),
        (" \n\n", "is empty, expected a first line with the columns' names"),
    ],
)
def test_no_row_is_swallowed(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=words):
        read_table(write(tmp_path / "t.csv", text))


def test_quotes_in_a_table_of_tabs_swallow_nothing(tmp_path: Path) -> None:
    text = 'path\tcaption\na\t"what a dog\nb\tthe "fast" car\nc\t"tree" house\nd\t"all ""of"" it"\ne\tlast"\n'
    rows = read_table(write(tmp_path / "t.tsv", text)).rows
    assert [row[1] for row in rows] == [
        '"what a dog', 'the "fast" car', '"tree" house', 'all "of" it', 'last"',
    ]  # fmt: skip
