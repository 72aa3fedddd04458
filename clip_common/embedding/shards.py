"""Tar shards in WebDataset's layout: `key.jpg` with its caption in `key.txt`; a damaged shard is an error."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from ..errors import RequestError
from ..preprocessing.files import SNIFFED, Seen, is_apple_double, is_image, kind_of
from ..system.reading import MOST_BYTES, require_size
from ..system.text_files import decode

_BLOCK = 512
_TEXT = ".txt"
_LONGEST_CAPTION = 1 << 20  # bytes


@dataclass(frozen=True)
class Member:
    """An image in a shard: `size` bytes at `offset`; `caption` is empty if there is none."""

    name: str
    offset: int
    size: int
    caption: str


def members_of(stream: IO[bytes], path: str, seen: Seen) -> list[Member]:
    """The images of a shard. If a name occurs several times, its last member counts, as for `tar`.

    Args:
        stream: an uncompressed tar file; must be seekable.
        path: its name in error messages.
        seen: members that are passed over are added to it.

    Raises:
        RequestError: the file is truncated, corrupt, compressed, or has data after its end.
        OSError: it cannot be read.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r:") as shard:
            found: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
            for header in shard:
                if header.name in found:
                    seen.passed_over["with the same name as a later file in the shard"] += 1
                found[header.name] = header, _beginning(stream, header)
            _require_end(stream, shard.offset)
        captions = {
            _key(name): _caption(content, f"a caption in {path}")
            for name, (header, content) in found.items()
            if _is_text(header)
        }
        members = []
        for name, (header, beginning) in found.items():
            if not header.isfile():
                if not header.isdir():
                    seen.passed_over["link in a shard"] += 1
            elif not is_apple_double(name) and is_image(name, beginning):
                caption = captions.get(_key(name), "")
                members.append(Member(name, header.offset_data, header.size, caption))
            elif name.lower()[-4:] != _TEXT or is_apple_double(name):
                seen.passed_over[kind_of(name)] += 1
        return members
    except OSError:
        raise
    except Exception as error:  # tarfile raises anything on garbage
        raise RequestError(f"{path}: not a complete, uncompressed tar file ({error})") from error


def _beginning(stream: IO[bytes], header: tarfile.TarInfo) -> bytes:
    """The content of a caption, or the first bytes of a member whose name does not tell its type.

    Called while the headers are read, so that a shard in a bucket is read from front to back.
    """
    if not header.isfile() or is_image(header.name, None):
        return b""
    stream.seek(header.offset_data)
    return stream.read(header.size if _is_text(header) else min(header.size, SNIFFED))


def _key(name: str) -> str:
    """What an image and its caption have in common: the name without its suffix."""
    return str(PurePosixPath(name).with_suffix(""))


def _is_text(header: tarfile.TarInfo) -> bool:
    return header.isfile() and header.name.lower().endswith(_TEXT) and header.size <= _LONGEST_CAPTION


def _require_end(stream: IO[bytes], offset: int) -> None:
    """Check that the members are followed by the zero block that ends a tar file, and by nothing else."""
    stream.seek(offset)
    block = stream.read(_BLOCK)
    if len(block) < _BLOCK:
        raise tarfile.TarError("it is truncated: its end marker is missing")
    if any(block):
        raise tarfile.TarError(f"it is damaged at byte {offset}")
    while rest := stream.read(1 << 20):
        if any(rest):
            raise tarfile.TarError("there is more after its end: are these several files, joined?")


def _caption(content: bytes, name: str) -> str:
    try:
        return decode(content, name).strip()
    except RequestError:  # a caption in an unknown encoding must not cost the image
        return content.decode("utf-8", "replace").strip()


def member(stream: IO[bytes], name: str) -> bytes:
    """Read the bytes of one member.

    Raises:
        OSError, KeyError, tarfile.TarError: the shard cannot be read, or has no such member.
    """
    with tarfile.open(fileobj=stream, mode="r:") as shard:
        content = shard.extractfile(name)
        if content is None:
            raise KeyError(name)
        require_size(shard.getmember(name).size, MOST_BYTES, name)
        return content.read()
