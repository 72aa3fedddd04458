"""Prepares the training data: converts packages of drawings to one folder of images and captions.

`python -m recipes.clip_mini.data --output DATA` writes `pictures.npy` (uint8 [N, 192, 192, 4], premultiplied
RGBA, opened as a memory map), `captions.jsonl` (one record per image) and `report.json`. The folder appears
only when it is complete. `--pictures FOLDER` uses your own images instead (see README.md).
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import io
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from clip_common.errors import TrainingError

from .captions import is_clean
from .diagrams import GENERATED, draw_diagrams
from .sources import EMOJI_NAMES, SOURCES, Drawing, Source, fetch, read, read_emoji_names

SIDE = 192
DEFAULT_CACHE = Path.home() / ".cache" / "clip_hub_training"
_FILES = ("pictures.npy", "captions.jsonl", "report.json")


@dataclass(frozen=True)
class Caption:
    """The name of an image and its other metadata.

    Attributes:
        concept: an id of what the image shows, the same in every style.
        near: an id shared by near-duplicates, so that splits keep them together.
    """

    name: str
    tags: tuple[str, ...]
    source: str
    licence: str
    style: str
    concept: str
    weight: float
    near: str = ""


@dataclass(frozen=True)
class Dataset:
    """The data of a prepared folder."""

    images: np.ndarray  # uint8 [N, SIDE, SIDE, 4], premultiplied RGBA
    captions: list[Caption]

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Open a prepared folder.

        Raises:
            TrainingError: the folder is missing, incomplete or damaged.
        """
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise TrainingError(f"{folder} has no {', '.join(missing)}: prepare it with `make mini-data`")
        try:
            pictures = np.load(folder / "pictures.npy", mmap_mode="r")
            lines = (folder / "captions.jsonl").read_text("utf-8").splitlines()
            captions = [Caption(**{**item, "tags": tuple(item["tags"])}) for item in map(json.loads, lines)]
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(f"{folder} is damaged, remove it and prepare it again: {error}") from error
        if len(captions) != len(pictures):
            raise TrainingError(f"{folder} has {len(pictures)} pictures and {len(captions)} captions")
        return cls(pictures, captions)


# --- images -------------------------------------------------------------------------------------------


def rasterise(content: str | bytes) -> np.ndarray:
    """Render a drawing to premultiplied RGBA, uint8 [SIDE, SIDE, 4], not cropped and centred.

    Args:
        content: SVG as text, or an encoded image file as bytes.

    Raises:
        ValueError: the drawing cannot be decoded, or is empty.
    """
    if isinstance(content, str):
        import resvg_py

        content = bytes(resvg_py.svg_to_bytes(svg_string=content, width=SIDE, skip_system_fonts=True))
    try:
        with Image.open(io.BytesIO(content)) as image:
            picture = image.convert("RGBA")
    except Exception as error:  # Pillow's decoders raise anything on damaged files
        raise ValueError(f"cannot be decoded ({error})") from error
    picture = picture.convert("RGBa")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    array = np.zeros((SIDE, SIDE, 4), np.uint8)
    top, left = (SIDE - picture.height) // 2, (SIDE - picture.width) // 2
    array[top : top + picture.height, left : left + picture.width] = np.asarray(picture)
    alpha = array[..., 3]
    if alpha.mean() < 4 or min(picture.size) < 8:
        raise ValueError("shows nothing")
    over_white = array[..., :3].astype(int) + (255 - alpha[..., None])
    if over_white.std() < 4:
        raise ValueError("shows nothing on white")
    return array


def to_image(array: np.ndarray) -> Image.Image:
    """A stored image as a PIL image with transparency."""
    return Image.frombytes("RGBa", array.shape[1::-1], np.ascontiguousarray(array).tobytes()).convert("RGBA")


def perceptual_hash(array: np.ndarray) -> np.ndarray:
    """A difference hash of 256 bits, uint64 [4]: near-duplicates differ in few bits."""
    grey = (array[..., :3].astype(np.float32).mean(-1) + (255 - array[..., 3])).astype(np.uint8)
    cells = np.asarray(Image.fromarray(grey).resize((17, 16), Image.Resampling.BOX), np.int16)
    return np.packbits(cells[:, 1:] > cells[:, :-1] + 2).view(np.uint64)


# The number of set bits of each 16-bit number; np.bitwise_count needs numpy 2, which not all Pythons get.
_BITS = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8)).reshape(-1, 16).sum(1, np.uint8)


def near_duplicates(hashes: np.ndarray, distance: int = 12) -> list[int]:
    """For each hash, uint64 [n, 4], the index of the first one that differs in at most `distance` bits."""
    first = np.full(len(hashes), -1)
    for i in range(len(hashes)):
        if first[i] < 0:
            close = _BITS[(hashes ^ hashes[i]).view(np.uint16)].sum(axis=1) <= distance
            first[close & (first < 0)] = i
    return first.tolist()


def _near_ids(drawings: list[Drawing], arrays: list[np.ndarray]) -> list[str]:
    """For each image the concept of its first near-duplicate in the same style, which may be itself."""
    ids = [drawing.concept for drawing in drawings]
    for style in {drawing.source.style for drawing in drawings}:
        rows = [i for i, drawing in enumerate(drawings) if drawing.source.style == style]
        groups = near_duplicates(np.stack([perceptual_hash(arrays[i]) for i in rows]))
        for i, group in zip(rows, groups, strict=True):
            ids[i] = drawings[rows[group]].concept
    return ids


# --- preparation --------------------------------------------------------------------------------------


def package_drawings(downloads: Path, sources: Iterable[Source] = SOURCES) -> Iterator[Drawing]:
    """All drawings of the packages, which are downloaded if missing, then the generated diagrams."""
    _need_resvg()
    names = read_emoji_names(fetch(EMOJI_NAMES, downloads))
    for source in sources:
        yield from read(source, fetch(source, downloads), names)
    for number, (name, content) in enumerate(draw_diagrams()):
        yield Drawing(name, ("diagram",), f"generated/{number}", GENERATED, content)


def folder_drawings(folder: Path) -> Iterator[Drawing]:
    """A user's own images. The caption is in a `.txt` file of the same name; else it is the file name."""
    own = Source(folder.name, "1", "the user's", "the user", "own")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".svg"):
            continue
        text = path.with_suffix(".txt")
        name = (
            text.read_text("utf-8").strip()
            if text.exists()
            else path.stem.replace("_", " ").strip(" 0123456789")
        )
        if path.suffix == ".svg":
            _need_resvg()
        content = path.read_text("utf-8") if path.suffix == ".svg" else path.read_bytes()
        yield Drawing(name, (), f"own/{path.relative_to(folder)}", own, content)


def _need_resvg() -> None:
    """Check that resvg-py is installed: without it every SVG would be skipped as damaged."""
    if importlib.util.find_spec("resvg_py") is None:
        raise TrainingError("resvg-py is not installed, which draws SVG: pip install '.[train]'")


def prepare(drawings: Iterable[Drawing], output: Path, workers: int = 2) -> dict:
    """Write a data folder; if it fails, no folder is left.

    Returns:
        The report: counts per source, and the skipped drawings with reasons.

    Raises:
        TrainingError: no drawing is usable, the folder exists, or it cannot be written.
    """
    if output.exists():
        raise TrainingError(f"{output} exists: remove it to prepare it again")
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        report = _write(drawings, temporary, workers)
        temporary.chmod(0o755)
        temporary.rename(output)
    except OSError as error:
        raise TrainingError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report


def _write(drawings: Iterable[Drawing], folder: Path, workers: int) -> dict:
    arrays, kept, skipped = [], [], []
    with Pool(workers) as pool:
        for drawing, array in tqdm(
            pool.imap(_render, drawings, chunksize=32), desc="pictures", unit="", mininterval=5
        ):
            if isinstance(array, str):
                skipped.append(f"{drawing.source.package}: {drawing.concept}: {array}")
            else:
                arrays.append(array)
                kept.append(drawing)
    if not kept:
        raise TrainingError(f"no usable image; {len(skipped)} were skipped, the first: {skipped[:1]}")
    near = _near_ids(kept, arrays)
    first_of: dict[tuple, int] = {}
    for i, drawing in enumerate(kept):  # drop identical images with the same name
        first_of.setdefault((drawing.name, drawing.source.style, arrays[i].tobytes()), i)
    rows = sorted(first_of.values())
    images = np.lib.format.open_memmap(folder / "pictures.npy", "w+", np.uint8, (len(rows), SIDE, SIDE, 4))
    for place, row in enumerate(rows):  # one at a time: together they are gigabytes
        images[place] = arrays[row]
    images.flush()
    captions = [_caption(kept[i], near=near[i]) for i in rows]
    lines = [json.dumps(asdict(caption), ensure_ascii=False) for caption in captions]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    counts = collections.Counter(caption.source for caption in captions)
    report = {"pictures": len(rows), "per source": dict(counts), "skipped": skipped}
    (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False), "utf-8")
    return report


def _render(drawing: Drawing) -> tuple[Drawing, np.ndarray | str]:
    """Return the drawing without its content, and its image or the reason to skip it."""
    light = Drawing(drawing.name, drawing.tags, drawing.concept, drawing.source, "")
    if not drawing.name.strip():
        return light, "no caption"
    if not is_clean(drawing.name):
        return light, "caption filtered"
    try:
        return light, rasterise(drawing.content)
    except Exception as error:  # a renderer may raise anything on damaged input
        return light, str(error) or type(error).__name__


def _caption(drawing: Drawing, near: str) -> Caption:
    source = drawing.source
    tags = tuple(tag for tag in drawing.tags if is_clean(tag))
    return Caption(
        drawing.name, tags, source.package, source.licence, source.style, drawing.concept, source.weight, near
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.clip_mini.data", description=__doc__)
    parser.add_argument("--output", type=Path, default=DEFAULT_CACHE / "data", help="folder to write")
    parser.add_argument(
        "--downloads", type=Path, default=DEFAULT_CACHE / "downloads", help="packages kept here"
    )
    parser.add_argument("--pictures", type=Path, help="a folder of your own pictures instead of the packages")
    arguments = parser.parse_args()
    drawings = (
        folder_drawings(arguments.pictures) if arguments.pictures else package_drawings(arguments.downloads)
    )
    try:
        report = prepare(drawings, arguments.output)
    except TrainingError as error:
        raise SystemExit(f"recipes.clip_mini.data: {error}") from None
    print(
        f"{report['pictures']} pictures in {arguments.output}; {len(report['skipped'])} skipped (report.json)"
    )


if __name__ == "__main__":
    main()
