"""Which files are images: by the suffixes of the formats that are read, else by their first bytes."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..errors import RequestError
from ..system.reading import require_regular
from .heif import HEIF_SUFFIXES, looks_like_heif, reads_heif
from .image import IMAGE_SUFFIXES

_SIGNATURE = re.compile(  # of all formats that are read, but HEIF, an extra's, and TGA, which has none
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|BM.{4}\0{4}|RIFF.{4}WEBP|II[*+]\0|MM\0[*+]|P[1-6Ff]\s"
    rb"|\0\0\x01\0.\0|\0\0\0\x0cjP  |\xff\x4f\xff\x51|.{4}ftypavi[fs]",
    re.DOTALL,
)
SNIFFED = 32
"""Bytes at a file's beginning that tell a format."""
_APPLE_DOUBLE = "._"
_USUAL_SUFFIX = re.compile(r"\.(?!\d+$)\w{1,8}", re.ASCII)


@dataclass
class Seen:
    """What was come across beside images.

    Attributes:
        passed_over: what is no image that can be read, counted by suffix or kind.
        unlisted: folders that could not be listed, and why.
    """

    passed_over: Counter[str] = field(default_factory=Counter)
    unlisted: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """What was passed over, in words; empty if nothing was."""
        kinds = sorted(self.passed_over.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count} {kind}" for kind, count in kinds)


def is_image(name: str, beginning: bytes | None) -> bool:
    """Whether a file is one to read as an image.

    Args:
        name: the file's. Its suffix decides, if it looks like one: `.mov` and `.txt` do, the end of
            `photo.jpg?size=large` and of `scan.001` do not.
        beginning: its first bytes, which decide otherwise; None if they are not known.
    """
    suffix = PurePosixPath(name).suffix
    if suffix.lower() in IMAGE_SUFFIXES:
        return True
    beginning = beginning or b""
    readable = bool(_SIGNATURE.match(beginning)) or (reads_heif() and looks_like_heif(beginning))
    return readable and not _USUAL_SUFFIX.fullmatch(suffix)


def kind_of(name: str) -> str:
    """What a file that is passed over is counted as."""
    if PurePosixPath(name).name.startswith(_APPLE_DOUBLE):
        return "._* (macOS)"
    suffix = PurePosixPath(name).suffix
    if suffix.lower() in HEIF_SUFFIXES:
        return f"{suffix.lower()} (read with the extra [heic])"
    return suffix.lower() if _USUAL_SUFFIX.fullmatch(suffix) else "without a usual suffix"


def is_apple_double(name: str) -> bool:
    """Whether it is the file of attributes that macOS puts beside another on a foreign disk."""
    return PurePosixPath(name).name.startswith(_APPLE_DOUBLE)


def first_bytes(file: str) -> bytes | None:
    """What tells a format; None if the file cannot be read."""
    try:
        require_regular(file)  # a link may lead to a pipe
        with Path(file).open("rb") as stream:
            return stream.read(SNIFFED)
    except OSError:
        return None


def matches_of(pattern: str) -> list[str]:
    """What a glob matches, in order; nothing is an error.

    Raises:
        RequestError: nothing, or the folder to look into cannot be listed.
    """
    matches = sorted(glob.glob(pattern, recursive=True))
    if matches:
        return matches
    folder = Path(pattern).parent
    while glob.has_magic(str(folder)):
        folder = folder.parent
    try:
        with os.scandir(folder):
            pass
    except PermissionError as error:
        raise RequestError(f"{pattern}: {folder} cannot be listed ({error.strerror})") from None
    except OSError:
        pass  # it is not there either
    raise RequestError(f"{pattern}: no such file or folder, and no match as a glob")


def image_files(folder: str, seen: Seen) -> Iterator[str]:
    """The images in a folder and below, in order of their names, each folder's own before its folders'.

    Links to folders are followed after all else, each folder once, so that a link changes no name and no
    circle goes round.

    Args:
        folder: as its images' paths are to begin.
        seen: is added to.
    """
    visited: set[tuple[int, int]] = set()
    linked: list[str] = [folder]
    while linked:
        below = [linked.pop(0)]
        while below:
            directory = below.pop(0)
            files, folders, links = _listed(directory, visited, seen)
            yield from _images_among(files, seen)
            below[:0] = folders
            linked += links


def _images_among(files: list[str], seen: Seen) -> list[str]:
    images = []
    for file in files:
        name = os.path.basename(file)  # noqa: PTH119 - a Path per image costs time
        beginning = None if _suffixed(name) else first_bytes(file)
        if not is_apple_double(name) and is_image(name, beginning):
            images.append(file)
        else:
            seen.passed_over[kind_of(name)] += 1
    return images


def _suffixed(name: str) -> bool:
    return bool(_USUAL_SUFFIX.fullmatch(PurePosixPath(name).suffix))


def _listed(
    directory: str, visited: set[tuple[int, int]], seen: Seen
) -> tuple[list[str], list[str], list[str]]:
    """Files, folders, and links to folders in a folder; nothing if it was visited under another name."""
    files: list[str] = []
    folders: list[str] = []
    links: list[str] = []
    try:
        status = os.stat(directory)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in visited:
            return [], [], []
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_symlink():  # one that leads nowhere is found out when it is read
                    (links if os.path.isdir(entry.path) else files).append(entry.path)  # noqa: PTH112
                elif entry.is_file():
                    files.append(entry.path)
                else:
                    seen.passed_over["pipe or device"] += 1
    except OSError as error:
        seen.unlisted[directory] = error.strerror or str(error)
    return files, folders, links
