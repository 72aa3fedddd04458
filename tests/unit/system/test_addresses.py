"""Addresses beside paths, and what of them is shown."""

from __future__ import annotations

import pytest

from clip_common.system.addresses import is_address, without_secrets
from clip_common.system.file_names import from_top


@pytest.mark.parametrize("text", ["s3://b/k", "GS://b", "https://h/a b.png", "oss://b", "foo+bar://x"])
def test_addresses(text: str) -> None:
    assert is_address(text)
    assert from_top(text, "/root") == text


@pytest.mark.parametrize("text", ["/a/b", "a:b", "c://x", "s3:/b", "://x", "dir/s3://b", ""])
def test_paths(text: str) -> None:
    assert not is_address(text)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("HTTPS://Host.Example/A.png#top", "https://host.example/A.png"),
        ("https://me:pa/ss@h/a.png", "https://me:pa/ss@h/a.png"),  # a slash ends the host: no password
        ("https://me:p@ss@h/a.png?id=3", "https://h/a.png?id=3"),
        ("https://h/a?X-Amz-Signature=s&w=3&X-Amz-Credential=AK%2F1&Expires=9", "https://h/a?w=3"),
        ("https://h/a?x-oss-signature=s&OSSAccessKeyId=k&Signature=s", "https://h/a"),
        ("https://h/a?q-sign-algorithm=sha1&q-ak=k&q-signature=s&versionId=1", "https://h/a?versionId=1"),
        ("https://h/a?sv=2024&sig=s&api_key=k&apikey=k&access_token=t&key=v", "https://h/a?sv=2024&key=v"),
        ("https://h", "https://h"),
        ("https://h?a=1", "https://h?a=1"),
        ("s3://b/key?X-Amz-Signature=a#b", "s3://b/key?X-Amz-Signature=a#b"),  # all of it is the key
        ("s3://AK:secret@b/key", "s3://b/key"),
    ],
)
def test_secrets_are_not_shown(address: str, shown: str) -> None:
    assert without_secrets(address) == shown
    assert without_secrets(shown) == shown
