"""What of an address is kept, and what of one in a message is printed."""

from __future__ import annotations

import logging
from urllib.parse import quote

import pytest

from clip_common.cli.reporting import one_line
from clip_common.errors import ImageError
from clip_common.system.log import logger
from clip_common.system.secrets import hide_secrets, without_secrets

HIDDEN = "hidden-0917b13a9091915d"  # of SECRET


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("HTTPS://Host.Example/A.png#top", "https://host.example/A.png"),
        ("https://me:pa/ss@h/a.png", "https://h/a.png"),
        ("https://me:p@ss@h/a.png?id=3", "https://h/a.png?id=3"),
        ("https://h/a?X-Amz-Signature=s&w=3&X-Amz-Credential=AK%2F1&Expires=9", "https://h/a?w=3"),
        ("https://h/a?x-oss-signature=s&OSSAccessKeyId=k&Signature=s", "https://h/a"),
        ("https://h/a?q-sign-algorithm=sha1&q-ak=k&q-signature=s&versionId=1", "https://h/a?versionId=1"),
        ("https://h/a?sv=2024&se=2026-01-01&sig=s&apikey=k&access_token=t", "https://h/a"),
        ("https://h/a?sv=2024&auth=s&Authorization=s&auth_token=s&x=1", "https://h/a?sv=2024&x=1"),
        ("https://h/a?password=s&pwd=s&client_secret=s&session_id=s&%74oken=s;jwt=s&n=2", "https://h/a?n=2"),
        ("https://h/a?key=photos/1.jpg&k=2024%2Fb.PNG", "https://h/a?key=photos/1.jpg&k=2024%2Fb.PNG"),
        ("https://h/a?key=SECRET&K=SECRET", f"https://h/a?key={HIDDEN}&K={HIDDEN}"),
        ("https://h/a?SECRET", f"https://h/a?{HIDDEN}"),
        ("https://h/a?tp=webp&from=wx&k=", "https://h/a?tp=webp&from=wx&k="),
        ("https://h/a?tp=Zm9vYmFyMTIzNDU2", "https://h/a?tp=hidden-67704c18801e6aa1"),
        ("https://h/a?x-oss-process=image/resize,w_2", "https://h/a?x-oss-process=image/resize,w_2"),
        ("https://h/a?key=7&id=7f3a&n=7", "https://h/a?key=hidden-7902699be42c8a8e&id=7f3a&n=7"),
        (
            "https://h/a?v=1571&format=1500w&crop=top&name=a b",
            "https://h/a?v=1571&format=1500w&crop=top&name=a b",
        ),
        (
            "https://h/r?url=https%3A%2F%2Fme%3Apw%40i%2Fa.png%3Fsig%3D1",
            "https://h/r?url=https://***@i/a.png",
        ),
        ("https://h/@me/img@2x.png", "https://h/@me/img@2x.png"),
        ("https://h:8080/a/b@c", "https://h:8080/a/b@c"),
        ("https://h", "https://h"),
        ("https://h?a=1", "https://h?a=1"),
        ("s3://b/key?a=b#c", "s3://b/key?a=b#c"),  # all of it is the key
        ("s3://b/key?a=b&X-Amz-Signature=s", "s3://b/key?a=b"),
        ("s3://AK:secret@b/key", "s3://b/key"),
    ],
)
def test_what_is_kept(address: str, kept: str) -> None:
    assert without_secrets(address) == kept
    assert without_secrets(kept) == kept


def test_addresses_that_differ_in_what_is_hidden_stay_different() -> None:
    assert without_secrets("https://h/a?k=SECRET") != without_secrets("https://h/a?k=SECRES")


@pytest.mark.parametrize(
    "address",
    [
        *(
            "https:/me:SECRET@h/a.png",
            "http//me:SECRET@h/a.png",
            "http/me:SECRET@h/a.png",
            "HTTPS://me:SECRET@h/a.png",
        ),
        *("me:SECRET@h/a.png", " https://me:SECRET@h/a.png", "https: //me:SECRET@h/a.png"),
        *("https ://me:SECRET@h/a.png", "https:// me:SECRET@h/a.png", "https:\\\\me:SECRET@h/a.png"),
        *("https://me:SEC RET@h/a.png", "https://me:SEC/RET@h/a.png", "https://me:SEC@RET@h/a.png"),
        *("https://SECRET@h/a.png", "//me:SECRET@h/a.png", "https:me:SECRET@h/a.png"),
        *("https://https://me:SECRET@h/a.png", "https//:me:SECRET@h/a.png", "s3:/AK:SECRET@b/a.png"),
        *("https:/h/a.png?sig=SECRET", "s3://b/a.png?sig=SECRET", "h.example/a.png?token=SECRET"),
        *("https://h/a.png?auth=SECRET&id=3", "https://h/a.png?k=SECRET", "http//h/a.png?key=SECRET"),
        *("https://h/a.png?SECRET", "https://h/a.png#access_token=SECRET", "HTTP:/h/a.png?id=1;sig=SECRET"),
    ],
)
def test_no_message_tells_a_secret(address: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger.name):
        logger.warning("%s: passed over", address)
    said = [
        str(ImageError(f"{address}: gone")),
        one_line("clip-hub", f"{address} cannot be listed"),
        one_line("clip-hub", FileNotFoundError(2, "gone", address)),
        *caplog.messages,
    ]
    assert len(said) == 4
    for message in said:
        assert "SEC" not in message
        assert "RET" not in message
        assert hide_secrets(message) == message


@pytest.mark.parametrize(
    "message",
    [
        "https://h.example/@me/img@2x.png: gone",
        "https://h:8080/a.png?id=3: the server answers 404, write to me@h.example",
        "https://h: no answer, write to me@h.example",
        "/data/x:y@z.png, table.csv#3: no such file",
        "photos/?.png: no match as a glob",
        "s3://photos/img?.png: there is no such object, and no match as a glob",
        "the label 'a dog = a cat?' is there twice",
        "give http://HOST:19530 of a Milvus server",
    ],
)
def test_messages_without_secrets_stay(message: str) -> None:
    assert hide_secrets(message) == message


@pytest.mark.parametrize("part", ["?a=b", "http/", ",a:b", "https://", "?a=https://x/?b=https%3A//x/%3Fc="])
def test_a_hostile_text_is_no_work_without_end(part: str) -> None:
    """With repetitions that are not bounded some of these take minutes, or too many calls within calls."""
    assert hide_secrets(part * 20_000 + " @")


@pytest.mark.parametrize("path", ["/p/bad?token=abc.jpg", "./a?sig=1", "../b#key=x", "~/c?k=SECRET"])
def test_a_files_name_is_told_whole(path: str) -> None:
    for text in (f"{path}: not an image", f"cannot read '{path}'", f"--input_path={path}"):
        assert hide_secrets(text) == text


@pytest.mark.parametrize(
    "mistyped", ["https:/h/x", "HTTP:/h", "http//h/x", "https/h", "s3:/b/x", "htps:/h/x"]
)
def test_a_mistyped_address_that_became_a_path_is_still_an_address(mistyped: str) -> None:
    for path in (f"/lists/a/{mistyped}?sig=SECRET", f"../{mistyped}?id=7&token=SECRET#api_key=SECRET"):
        assert "SECRET" not in hide_secrets(f"{path}: cannot be read (No such file)")


def test_an_address_within_an_address_within_an_address_is_not_shown() -> None:
    inner = quote("https://c/?url=" + quote("https://d/?token=SECRET"))
    shown = hide_secrets(f"see https://a/?url=https%3A//b/%3Furl%3D{quote(inner)}")
    assert "SECRET" not in shown and shown.startswith("see https://a/?url=")
    assert "SECRET" not in hide_secrets("see https://a/?url=/b?token=SECRET")
