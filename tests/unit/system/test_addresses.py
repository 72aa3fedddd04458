"""Addresses beside paths."""

from __future__ import annotations

import pytest

from clip_common.system.addresses import is_address
from clip_common.system.file_names import from_top


@pytest.mark.parametrize("text", ["s3://b/k", "GS://b", "https://h/a b.png", "oss://b", "foo+bar://x"])
def test_an_address_is_one_and_is_kept_as_it_is(text: str) -> None:
    assert is_address(text)
    assert from_top(text, "/root") == text


@pytest.mark.parametrize("text", ["/a/b", "a:b", "c://x", "s3:/b", "://x", "dir/s3://b", ""])
def test_what_only_looks_like_an_address_is_a_path(text: str) -> None:
    assert not is_address(text)
