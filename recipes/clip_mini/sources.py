"""The list of packages with drawings, and their readers. The licence of a package is checked when it is read.

Left out on purpose: Mozilla's FxEmojis (the style of the acceptance test), sets under CC-BY-SA or GPL
(OpenMoji, EmojiOne 1, Tux Paint), emoji without an open licence (Apple, Facebook), logos and brands.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from clip_common.errors import TrainingError

LICENCES = {"CC0-1.0", "MIT", "Apache-2.0", "ISC", "CC-BY-3.0", "CC-BY-4.0", "public domain"}


@dataclass(frozen=True)
class Source:
    """One package of images.

    Attributes:
        package: name of the npm or Debian package.
        style: drawing style; versions of a set share it, so that splits keep them together.
        weight: how often training shows its images, relative to emoji.
        emoji: whether its images have Unicode names.
    """

    package: str
    version: str
    licence: str
    author: str
    style: str
    weight: float = 1.0
    emoji: bool = False

    @property
    def archive(self) -> str:
        """The file name that `npm pack` gives to the package."""
        return f"{self.package.lstrip('@').replace('/', '-')}-{self.version}.tgz"


_ICONIFY = "@iconify-json/"
EMOJI_NAMES = Source("emojibase-data", "17.0.0", "MIT", "Miles Johnson", "none")
CLIP_ART = Source(
    "openclipart-png", "1:0.18+dfsg-19", "public domain", "Open Clip Art Library", "clip-art", 1.4
)
SOURCES = (
    Source(_ICONIFY + "noto", "1.2.9", "Apache-2.0", "Google Inc", "noto", emoji=True),
    Source(_ICONIFY + "noto-v1", "1.2.5", "Apache-2.0", "Google Inc", "noto", emoji=True),
    Source(_ICONIFY + "twemoji", "1.2.5", "CC-BY-4.0", "Twitter", "twemoji", emoji=True),
    Source(_ICONIFY + "fluent-emoji", "1.2.7", "MIT", "Microsoft Corporation", "fluent", emoji=True),
    Source(
        _ICONIFY + "fluent-emoji-flat", "1.2.6", "MIT", "Microsoft Corporation", "fluent-flat", emoji=True
    ),
    Source(
        _ICONIFY + "fluent-emoji-high-contrast",
        "1.2.6",
        "MIT",
        "Microsoft Corporation",
        "fluent-mono",
        0.4,
        True,
    ),
    Source(_ICONIFY + "streamline-emojis", "1.2.4", "CC-BY-4.0", "Streamline", "streamline", emoji=True),
    Source(_ICONIFY + "flat-color-icons", "1.2.3", "MIT", "Icons8", "flat-color-icons", 0.7),
    Source(_ICONIFY + "meteocons", "1.2.4", "MIT", "Bas Milius", "meteocons", 0.1),
    Source(_ICONIFY + "fluent-color", "1.2.21", "MIT", "Microsoft Corporation", "fluent-color", 0.4),
    Source(_ICONIFY + "icon-park", "1.2.4", "Apache-2.0", "ByteDance", "icon-park", 0.25),
    Source(_ICONIFY + "streamline-ultimate-color", "1.2.2", "CC-BY-4.0", "Streamline", "streamline-ui", 0.2),
    Source(_ICONIFY + "streamline-kameleon-color", "1.2.2", "CC-BY-4.0", "Streamline", "kameleon", 0.8),
    Source(_ICONIFY + "streamline-stickies-color", "1.2.2", "CC-BY-4.0", "Streamline", "stickies", 0.4),
    Source(_ICONIFY + "streamline-freehand-color", "1.2.2", "CC-BY-4.0", "Streamline", "freehand", 0.2),
    Source(_ICONIFY + "flat-ui", "1.2.3", "MIT", "Designmodo, Inc.", "flat-ui", 0.5),
    Source(_ICONIFY + "game-icons", "1.2.4", "CC-BY-3.0", "GameIcons", "game-icons", 0.15),
    Source(_ICONIFY + "emojione", "1.2.3", "CC-BY-4.0", "EmojiOne, EmojiTwo", "emojione", emoji=True),
    CLIP_ART,
)

# Folders of the clip-art: without real persons, weapons, logos, flags, maps, and the 1,378 star polygons.
_FOLDERS = re.compile(
    r"(animals|buildings|computer|containers|decorations|education|electronics|food|office|plants|recreation"
    r"|science|transportation|geography/astronomy|shapes/(arrows|flowchart|callouts)|tools|people/(bodypart"
    r"|clothing|stickmen|smilies)|signs_and_symbols(?!/(flags|led|religion)))(/|$)"
)
_NOT_FOLDERS = re.compile(r"weapons|religion|logo|computer/(buttons|icons)|recreation/games/cards")
_SKIN_TONE = re.compile(r"-(light|medium|dark)(-(light|dark))?-skin-tone|-(medium-)?(light|dark)$|-medium$")
_SIZE = re.compile(r"-(16|20|24|28|32|48)$")
_VARIANT = re.compile(r"(-(fill|line))?(-\d{1,2}|-(one|two|three|four|five))?(-duo)?$")
_BRAND = re.compile(r"logo|brand|facebook|twitter|google|github|microsoft|amazon|adobe|alipay|wechat|tiktok")
_MAX_SIDE = 4000


@dataclass(frozen=True)
class Drawing:
    """An image of a package with its name and tags; `content` is SVG text or an encoded image file."""

    name: str
    tags: tuple[str, ...]
    concept: str
    source: Source
    content: str | bytes


def slug(text: str) -> str:
    """A name as in package files, such as "grinning-face": the same key for an emoji in all sets."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("’", "").replace("'", "")).strip("-")


def fetch(source: Source, folder: Path) -> Path:
    """The path of a package's file in a folder; it is downloaded with npm or apt-get if missing.

    Raises:
        TrainingError: the package cannot be downloaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if source is CLIP_ART:
        found = sorted(folder.glob(f"{source.package}_*.deb"))
        command = ["apt-get", "download", source.package]
    else:
        found = sorted(folder.glob(source.archive))
        command = ["npm", "pack", "--silent", f"{source.package}@{source.version}"]
    if found:
        return found[-1]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()[-300:]
        raise TrainingError(f"cannot download {source.package} with `{' '.join(command)}`: {said}") from error
    return fetch(source, folder)


def read(
    source: Source, archive: Path, emoji_tags: dict[str, tuple[str, tuple[str, ...]]]
) -> Iterator[Drawing]:
    """Yield the drawings of a package.

    Raises:
        TrainingError: the file is damaged, or its licence differs from the one recorded here.
    """
    try:
        if source is CLIP_ART:
            yield from _read_clip_art(archive)
        else:
            yield from _read_iconify(source, archive, emoji_tags)
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError) as error:
        raise TrainingError(f"{archive} is damaged, remove it and try again: {error}") from error


def read_emoji_names(archive: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The Unicode name and the tags of each emoji, by the slug of the name."""
    labels = json.loads(_member(archive, "package/en/data.json"))
    return {slug(item["label"]): (item["label"], tuple(item.get("tags", ()))) for item in labels}


def _member(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def _read_iconify(
    source: Source, archive: Path, emoji_tags: dict[str, tuple[str, tuple[str, ...]]]
) -> Iterator[Drawing]:
    licence = json.loads(_member(archive, "package/info.json"))["license"].get("spdx")
    if licence != source.licence or licence not in LICENCES:
        raise TrainingError(f"{archive} is under {licence}, and {source.licence} is recorded: read it again")
    icons = json.loads(_member(archive, "package/icons.json"))
    largest: dict[str, str] = {}
    for key in icons["icons"]:
        if not _BRAND.search(key) and not (source.emoji and _SKIN_TONE.search(key)):
            base = _SIZE.sub("", key) if source.style == "fluent-color" else key
            largest[base] = max(key, largest.get(base, ""))  # "-48" sorts last
    for base, key in largest.items():
        concept = _VARIANT.sub("", base) or base
        if source.emoji and base in emoji_tags:
            concept = base
        concept = re.sub(r"^flag-for-flag-|^flag-for-", "flag-", concept)
        name, tags = emoji_tags.get(concept, (concept.replace("-", " "), ()))
        yield Drawing(name, tags, concept, source, _svg(icons, icons["icons"][key]))


def _svg(icons: dict, icon: dict) -> str:
    left, top = icon.get("left", 0), icon.get("top", 0)
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}" color="#222222">'
        f"{icon['body']}</svg>"
    )


def _read_clip_art(archive: Path) -> Iterator[Drawing]:
    """Yield the drawings of the Debian package. Symbolic links, other names of images, are skipped."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            for member in tar:
                path = member.name.partition("/openclipart/png/")[2]
                folder, _, file = path.rpartition("/")
                allowed = _FOLDERS.match(folder) and not _NOT_FOLDERS.search(folder)
                if not (member.isfile() and file.endswith(".png") and allowed):
                    continue
                content = tar.extractfile(member).read()  # type: ignore[union-attr]
                name = _clip_art_name(file[: -len(".png")], content)
                if name:
                    tags = tuple(part.replace("_", " ") for part in folder.split("/"))
                    yield Drawing(name, tags, f"clip-art/{path}", CLIP_ART, content)


def _clip_art_name(stem: str, content: bytes) -> str | None:
    """A file name without its number and (cut-off) author; None for Italian names and huge images."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            author = slug(str(image.info.get("Author", "")))
            too_large = max(image.size) > _MAX_SIDE
    except (OSError, Image.DecompressionBombError):
        return stem.replace("_", " ")  # rendering will skip and report it
    if too_large or "architetto" in author or re.search(r"_archi?\w*_", stem + "_"):
        return None
    words = [word for word in slug(stem).split("-") if not word.isdigit()]
    while len(words) > 1 and words[-1] in {*author.split("-"), "bw", "drawn", "icon", "01r", "01c"}:
        words.pop()
    for start in range(1, len(words)):
        if author.startswith("-".join(words[start:])):
            words = words[:start]
            break
    name = re.sub(r"^aiga | ganson\b.*| rpg map elements.*|\d+$", "", " ".join(words)).strip()
    return name if len(name) > 2 else None
