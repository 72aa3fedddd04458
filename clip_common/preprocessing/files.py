"""Find image files, by the suffixes of supported formats, or else by their first bytes."""

from __future__ import annotations

import errno
import fnmatch
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
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_USUAL_SUFFIX = re.compile(r"\.(?!\d+$)\w{1,8}", re.ASCII)


@dataclass
class Seen:
    """What was encountered besides images.

    Attributes:
        passed_over: number of files that are not readable images, by suffix or kind.
        unlisted: why a folder could not be listed, by its path.
    """

    passed_over: Counter[str] = field(default_factory=Counter)
    unlisted: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """Summary of the files that were passed over; empty if there were none."""
        kinds = sorted(self.passed_over.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count} {kind}" for kind, count in kinds)


def is_image(name: str, beginning: bytes | None) -> bool:
    """Whether a file should be read as an image.

    Args:
        name: name of the file. Its suffix decides if it looks like a usual suffix, such as `.mov` and `.txt`,
            but not the ends of `photo.jpg?size=large` and `scan.001`.
        beginning: its first bytes, which decide otherwise; None if they are not known.
    """
    suffix = PurePosixPath(name).suffix
    if suffix.lower() in IMAGE_SUFFIXES:
        return True
    beginning = beginning or b""
    readable = bool(_SIGNATURE.match(beginning)) or (reads_heif() and looks_like_heif(beginning))
    return readable and not _USUAL_SUFFIX.fullmatch(suffix)


def kind_of(name: str) -> str:
    """The kind of a file that is passed over, for counting."""
    if PurePosixPath(name).name.startswith(_APPLE_DOUBLE):
        return "._* (macOS)"
    suffix = PurePosixPath(name).suffix
    if suffix.lower() in HEIF_SUFFIXES:
        return f"{suffix.lower()} (read with the extra [heic])"
    return suffix.lower() if _USUAL_SUFFIX.fullmatch(suffix) else "without a usual suffix"


def is_apple_double(name: str) -> bool:
    """Whether it is a file `._*`, which macOS creates for attributes on foreign file systems."""
    return PurePosixPath(name).name.startswith(_APPLE_DOUBLE)


def first_bytes(file: str) -> bytes | None:
    """The first bytes of a file, which tell its format; None if it cannot be read."""
    try:
        require_regular(file)  # a link may lead to a pipe
        with Path(file).open("rb") as stream:
            return stream.read(SNIFFED)
    except OSError:
        return None


def matches_of(pattern: str, seen: Seen) -> list[str]:
    """The matches of a glob, sorted, without those in a folder that matches, too.

    Args:
        pattern: the glob. `**` stands for any folders, each of which is visited once.
        seen: folders that cannot be listed are added to it.

    Raises:
        RequestError: there are none, and every folder could be listed.
    """
    folder, name = os.path.split(pattern)
    while name == "**":  # a folder with all that is in it
        folder, name = os.path.split(folder) if folder else ("", "*")
    matches = {match.rstrip("/") or "/" for match in _matches(os.path.join(folder, name), seen)}  # noqa: PTH118
    if not matches and not seen.unlisted:
        raise RequestError(f"{pattern}: no such file or folder, and no match as a glob")
    return sorted(match for match in matches if matches.isdisjoint(_folders_above(match)))


def _folders_above(path: str) -> Iterator[str]:
    while (above := os.path.dirname(path)) not in ("", path):  # noqa: PTH120
        yield above
        path = above


def _matches(pattern: str, seen: Seen) -> Iterator[str]:
    folder, name = os.path.split(pattern)
    folders = [folder]
    if glob.has_magic(folder):
        folders = [match for match in _matches(folder, seen) if os.path.isdir(match or os.curdir)]  # noqa: PTH112
    for base in folders:
        if name == "**":
            yield from _folders_below(base, seen)
        elif glob.has_magic(name):
            yield from (os.path.join(base, entry) for entry in _names(base, name, seen))  # noqa: PTH118
        elif _is_there(base, name, seen):
            yield os.path.join(base, name)  # noqa: PTH118


def _names(folder: str, pattern: str, seen: Seen) -> list[str]:
    """The names in a folder that match a pattern; hidden ones only if it begins with a dot."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            names = [entry.name for entry in entries]
    except OSError as error:
        _add_unlisted(folder, error, seen)
        return []
    hidden = pattern.startswith(".")
    return [name for name in fnmatch.filter(names, pattern) if hidden or not name.startswith(".")]


def _is_there(folder: str, name: str, seen: Seen) -> bool:
    try:
        os.lstat(os.path.join(folder, name))  # noqa: PTH118
    except ValueError:  # a zero byte in the name
        return False
    except OSError as error:
        _add_unlisted(folder, error, seen)
        return False
    return True


def _add_unlisted(folder: str, error: OSError, seen: Seen) -> None:
    if error.errno not in _NOT_THERE:
        seen.unlisted[folder or os.curdir] = error.strerror or str(error)


def _folders_below(folder: str, seen: Seen) -> Iterator[str]:
    """A folder and all folders below it, except hidden ones."""
    only_unlisted = Seen(unlisted=seen.unlisted)  # what is passed over is counted where it would match
    return (directory for directory, _ in _walk(folder, only_unlisted, hidden=False))


def _is_hidden(path: str) -> bool:
    return os.path.basename(path).startswith(".")  # noqa: PTH119


def image_files(folder: str, seen: Seen) -> Iterator[str]:
    """The images in a folder and its subfolders, sorted by name, files before subfolders.

    Links to folders are followed last, and each folder is visited once, so links neither change the paths of
    other images nor cause endless loops.

    Args:
        folder: the folder; the returned paths begin with it.
        seen: files that are passed over and folders that cannot be listed are added to it.
    """
    for _, files in _walk(folder, seen):
        yield from _images_among(files, seen)


def _walk(folder: str, seen: Seen, hidden: bool = True) -> Iterator[tuple[str, list[str]]]:
    """A folder and the folders below it, each once, with their files; those behind links last.

    Args:
        folder: the folder; all paths begin with it.
        seen: see `image_files`.
        hidden: enter hidden folders, too.
    """
    visited: set[tuple[int, int]] = set()
    linked = [folder]
    while linked:
        below = [linked.pop(0)]
        while below:
            directory = below.pop(0)
            if not _entered(directory, visited, seen):
                continue
            files, folders, links = _listed(directory, seen)
            yield directory, files
            below[:0] = [name for name in folders if hidden or not _is_hidden(name)]
            linked += [name for name in links if hidden or not _is_hidden(name)]


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


def _entered(directory: str, visited: set[tuple[int, int]], seen: Seen) -> bool:
    """Whether a folder is entered for the first time."""
    try:
        status = os.stat(directory or os.curdir)  # noqa: PTH116
    except OSError as error:
        seen.unlisted[directory] = error.strerror or str(error)
        return False
    place = status.st_dev, status.st_ino
    first = place not in visited
    visited.add(place)
    return first


def _listed(directory: str, seen: Seen) -> tuple[list[str], list[str], list[str]]:
    """Files, folders, and links to folders in a folder, sorted."""
    files: list[str] = []
    folders: list[str] = []
    links: list[str] = []
    try:
        with os.scandir(directory or os.curdir) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(os.path.join(directory, entry.name))  # noqa: PTH118
                elif entry.is_symlink():  # a dangling link is reported when it is read
                    to = links if os.path.isdir(entry.path) else files  # noqa: PTH112
                    to.append(os.path.join(directory, entry.name))  # noqa: PTH118
                elif entry.is_file():
                    files.append(os.path.join(directory, entry.name))  # noqa: PTH118
                else:
                    seen.passed_over["pipe or device"] += 1
    except OSError as error:
        seen.unlisted[directory or os.curdir] = error.strerror or str(error)
    return files, folders, links
