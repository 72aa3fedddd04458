"""Pack a module into one archive, for machines without this repository and without network access.

`hub install NAME-VERSION.tar.gz` installs it. The module uses the copy of `clip_common` in its own folder, so
modules with different versions can be used in one process. Archives are reproducible byte for byte.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import keyword
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from ..config import PRETRAINED, Pretrained
from ..errors import RequestError, WeightsError
from ..system.cache import content_sha256
from ..system.output import atomic_file
from ..system.scratch import scratch_folder
from ..weights.convert import convert
from ..weights.locate import find_local
from ..weights.weights_file import WeightsFile

_PACKAGE = Path(__file__).resolve().parent.parent
_ROOT = _PACKAGE.parent
_ABSOLUTE_IMPORT = re.compile(r"^(from|import) clip_common\b", re.MULTILINE)


def pack(
    record: Pretrained,
    folder: Path,
    weights: str | Path | None = None,
    with_weights: bool = True,
    name: str | None = None,
    readme: Path | None = None,
) -> Path:
    """Write the archive of a module.

    Args:
        record: the module.
        folder: output folder.
        weights: weights file to include; default: the module's own, if they are on this machine.
        with_weights: include weights; without them, the module looks for them where it is installed.
        name: new name of the module, for weights that `adapt` made.
        readme: model card to include instead of the module's own.

    Returns:
        The archive, `NAME-VERSION.tar.gz`.

    Raises:
        WeightsError: the weights are not on this machine, or do not fit the module.
        RequestError: this is not a source tree, the name is invalid, or the model card does not exist.
    """
    name = name or record.name
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise RequestError(f"{name!r} cannot be a module's name: use lower-case letters, digits and _")
    if keyword.iskeyword(name) or (name in PRETRAINED and name != record.name):
        raise RequestError(f"{name!r} cannot be the name of another module: choose one that is free")
    source = _ROOT / "modules" / record.name
    if not source.is_dir():
        raise RequestError(f"no {source}: packing needs this project's source tree, not only the package")
    if readme and not readme.is_file():
        raise RequestError(f"no model card at {readme}: name a file, or leave --readme out")
    target = folder / f"{name}-{_version(source)}.tar.gz"
    with scratch_folder() as temporary:
        members = dict(_code(source, name))
        if readme:
            members[f"{name}/README.md"] = readme
        if with_weights:
            members[f"{name}/{record.name}.safetensors"] = _weights(record, weights, temporary)
        with atomic_file(target) as unfinished:
            _write(members, unfinished)
    return target


def _version(source: Path) -> str:
    match = re.search(r'^    version="([^"]+)"', (source / "module.py").read_text("utf-8"), re.MULTILINE)
    assert match, f"{source}/module.py states no version"
    return match[1]


def _code(source: Path, top: str) -> Iterator[tuple[str, Path | bytes]]:
    """The members of the archive, with their names: the module's files, the package, and the licences."""
    module = (source / "module.py").read_text("utf-8")
    module = re.sub(r"^from clip_common\b", "from .clip_common", module, flags=re.MULTILINE)
    module = re.sub(r'^    name="[^"]+"', f'    name="{top}"', module, flags=re.MULTILINE)
    yield f"{top}/module.py", module.encode()
    for file in source.iterdir():
        if file.is_file() and file.name not in ("module.py", "test.py") and file.suffix != ".safetensors":
            yield f"{top}/{file.name}", file
    for file in _PACKAGE.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            if file.suffix == ".py" and _ABSOLUTE_IMPORT.search(file.read_text("utf-8")):
                raise AssertionError(
                    f"{file} imports clip_common by its absolute name, and could not be packed"
                )
            yield f"{top}/clip_common/{file.relative_to(_PACKAGE)}", file
    for name in ("LICENSE", "NOTICE"):
        yield f"{top}/{name}", _ROOT / name


def _weights(record: Pretrained, chosen: str | Path | None, temporary: Path) -> Path:
    """Convert the weights to safetensors in OpenAI's names, and check that they load."""
    found = find_local(record, chosen)
    if found is None:
        raise WeightsError(
            f"the weights of {record.name} are not on this machine: name a file with --weights, "
            "or leave them out with --no_weights"
        )
    from ..models.factory import load_model  # Paddle takes seconds to import

    path = temporary / f"{record.name}.safetensors"
    convert(found.path, path)
    load_model(WeightsFile(path, content_sha256(path), found.record))
    return path


def _write(members: dict[str, Path | bytes], target: Path) -> None:
    """Write a tar.gz whose bytes depend only on names and contents."""
    with (
        target.open("wb") as file,
        # Weights hardly compress, so a higher level only takes longer.
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(members):
            content = members[name]
            entry = tarfile.TarInfo(name)
            entry.mode = 0o644
            entry.size = len(content) if isinstance(content, bytes) else content.stat().st_size
            entry.mtime = _time_of(content)
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as stream:
                archive.addfile(entry, stream)


def _time_of(content: Path | bytes) -> int:
    """A modification time derived from a file's content, between 2001 and 2017.

    So caches that identify a file by size and time, such as Python's bytecode cache, notice a changed file.
    """
    digest = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else content_sha256(content)
    return 1_000_000_000 + int(digest[:15], 16) % 500_000_000
