"""File names as text: one spelling, and back to the very bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_common.system.file_names import (
    escape_name,
    printable,
    printable_lines,
    read_shown_name,
    shown_name,
    under_root,
    unescape_name,
    user_path,
)


@given(st.binary(max_size=30).filter(lambda raw: b"\0" not in raw))
def test_any_name_comes_back(raw: bytes) -> None:
    name = os.fsdecode(raw)
    text = escape_name(name)
    text.encode("utf-8")
    assert os.fsencode(unescape_name(text)) == raw


@given(st.lists(st.sampled_from(["\\", "x", "e", "9", "\udce9", "\udc80", "n", "\\xe9", "狗"]), max_size=12))
def test_names_that_look_escaped_come_back(parts: list[str]) -> None:
    name = "".join(parts)
    escape_name(name).encode("utf-8")
    assert unescape_name(escape_name(name)) == name


def test_usual_names_stay_as_they_are() -> None:
    for name in ("photos/狗.png", "back\\slash.png", "new\nline.png", "\\x41.png", "100%.png"):
        assert escape_name(name) == name
    assert escape_name(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"


@given(
    st.binary(max_size=30).filter(lambda raw: b"\0" not in raw), st.sampled_from(["utf-8", "ascii", "gbk"])
)
def test_any_name_is_read_as_it_was_printed(raw: bytes, console: str) -> None:
    name = os.fsdecode(raw)
    printed = printable_lines(shown_name(name), console)
    assert printed.isprintable() or console == "utf-8"
    printed.encode(console)
    assert os.fsencode(read_shown_name(printed)) == raw


@given(
    st.lists(st.sampled_from(["\\", "x", "e9", "\udce9", "\n", "n", "\x9b", "u009b", "é", "狗"]), max_size=12)
)
def test_names_that_look_printed_are_told_apart(parts: list[str]) -> None:
    name = "".join(parts)
    for console in ("utf-8", "ascii", "latin-1"):
        assert read_shown_name(printable_lines(shown_name(name), console)) == name


def test_usual_names_are_printed_as_they_are() -> None:
    assert shown_name("photos/狗 é.png") == "photos/狗 é.png"
    assert shown_name("back\\slash\n") == "back\\\\slash\\n"
    assert shown_name(os.fsdecode(b"caf\xe9")) == "caf\\xe9"


def test_only_a_leading_home_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert user_path("~/a.png") == Path("/home/somebody/a.png")
    for name in ("~x.png", "a/~/b.png", "~root/x", "plain"):
        assert user_path(name) == Path(name)


def test_one_spelling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    spellings = ["p/a.png", "./p/a.png", "p//a.png", "p/../p/a.png", str(tmp_path / "p" / "a.png")]
    assert {under_root(path, tmp_path) for path in spellings} == {"p/a.png"}
    assert under_root("../other.png", tmp_path) == str(tmp_path.parent / "other.png")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("new\nline\r.png", "new\\nline\\r.png"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("photo\u202egnp.exe", "photo\\u202egnp.exe"),
        ("\u2066a\u2069\u061c\u200e", "\\u2066a\\u2069\\u061c\\u200e"),
        ("a\tb\x00\x7f\x9b", "a\\tb\\x00\\x7f\\u009b"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        ("照片 é\u200d.png", "照片 é\u200d.png"),
        ("\udce9", "\\xe9"),
    ],
)
def test_a_printed_name_is_on_one_line_and_moves_nothing(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert printable_lines(f"{shown}\n\t{name}").splitlines()[0] == shown
    assert printable(printable(name)) == shown
