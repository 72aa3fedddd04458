"""Tar shards in WebDataset's layout: `key.jpg`, with its caption in `key.txt`; each is whole, or an error."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import RequestError
from ..preprocessing.files import Seen, is_apple_double, is_image, kind_of
from ..system.reading import MOST_BYTES, require_size
from ..system.text_files import decode

_BLOCK = 512
_LONGEST_CAPTION = 1 << 20  # bytes


@dataclass(frozen=True)
class Member:
    """An image in a shard: its bytes are `size` from `offset` on; `caption` is empty where there is none."""

    name: str
    offset: int
    size: int
    caption: str


def members_of(path: Path, seen: Seen) -> list[Member]:
    """The images of a shard; of several by one name the last counts, as for `tar`.

    Args:
        path: an uncompressed tar file.
        seen: is added to.

    Raises:
        RequestError: it is not whole: cut short, garbled, compressed, or goes on after its end.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as shard:
            headers = list(shard)
            _require_end(stream, shard.offset)
            found = {member.name: member for member in headers}
            if len(found) < len(headers):
                seen.passed_over["of a name that comes again in its shard"] += len(headers) - len(found)
            texts = {
                str(PurePosixPath(name).with_suffix("")): member
                for name, member in found.items()
                if member.isfile() and name.lower().endswith(".txt") and member.size <= _LONGEST_CAPTION
            }
            members = []
            for name, member in found.items():
                if not member.isfile():
                    if not member.isdir():
                        seen.passed_over["link in a shard"] += 1
                    continue
                stream.seek(member.offset_data)
                if is_apple_double(name) or not is_image(name, stream.read(32)):
                    if name.lower()[-4:] != ".txt" or is_apple_double(name):
                        seen.passed_over[kind_of(name)] += 1
                    continue
                text = texts.get(str(PurePosixPath(name).with_suffix("")))
                caption = _caption(stream, text, f"a caption in {path}") if text else ""
                members.append(Member(name, member.offset_data, member.size, caption))
            return members
    except OSError:
        raise
    except Exception as error:  # tarfile raises anything on garbage
        raise RequestError(f"{path}: not a whole, uncompressed tar file ({error})") from error


def _require_end(stream: object, offset: int) -> None:
    """Check that members end with the block of zeros that ends a tar file, and that none follow it."""
    stream.seek(offset)  # type: ignore[attr-defined]
    block = stream.read(_BLOCK)  # type: ignore[attr-defined]
    if len(block) < _BLOCK:
        raise tarfile.TarError("it is cut short: the mark of its end is missing")
    if any(block):
        raise tarfile.TarError(f"it is garbled at byte {offset}")
    while rest := stream.read(1 << 20):  # type: ignore[attr-defined]
        if any(rest):
            raise tarfile.TarError("it goes on after its end: are these several, joined?")


def _caption(stream: object, text: tarfile.TarInfo, name: str) -> str:
    stream.seek(text.offset_data)  # type: ignore[attr-defined]
    content = stream.read(text.size)  # type: ignore[attr-defined]
    try:
        return decode(content, name).strip()
    except RequestError:  # the image is not to blame
        return content.decode("utf-8", "replace").strip()


def member(path: Path, name: str) -> bytes:
    """The bytes of one member.

    Raises:
        OSError, KeyError, tarfile.TarError: they cannot be had.
    """
    with tarfile.open(os.fspath(path), "r:") as shard:
        content = shard.extractfile(name)
        if content is None:
            raise KeyError(name)
        require_size(shard.getmember(name).size, MOST_BYTES, name)
        return content.read()
