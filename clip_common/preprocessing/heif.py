"""Reads HEIC and HEIF with pillow-heif (the extra [heic]), and finds their decoded size before decoding.

The size that a HEIC file states does not limit its decoder: a coded image is as large as its HEVC sequence
parameter sets say, and a grid is as large as all its tiles together. Both are read here before decoding.
"""

from __future__ import annotations

import importlib.util
import struct
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO

from ..errors import ImageError

HEIF_SUFFIXES = frozenset((".heic", ".heics", ".heif", ".heifs", ".hif"))
NEEDS_EXTRA = "read with the extra [heic]: pip install '.[heic]'"

_BRANDS = frozenset(b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split())
_MAX_BYTES = 256 * 1024 * 1024  # pillow-heif reads the whole file into memory
_MAX_META = 1_000_000  # bytes that describe the images; phones write a few thousand
_MAX_TILES = 1024  # each needs a decoder; phones write about fifty
_MAX_UNITS = 20_000  # HEVC units in all images of a file
_SEQUENCE_PARAMETERS = 33  # the type of an HEVC unit
_USUAL_ITEMS = frozenset((b"hvc1", b"grid", b"Exif", b"mime", b"uri ", b"tmap"))

Size = tuple[int, int]


@cache
def reads_heif() -> bool:
    """Whether the extra is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def register_heif() -> None:
    """Register the HEIF format with Pillow, if the extra is installed."""
    if reads_heif():
        import pillow_heif

        pillow_heif.register_heif_opener(
            thumbnails=False, depth_images=False, aux_images=False, decode_threads=1
        )


def looks_like_heif(head: bytes) -> bool:
    """Whether a file's first 12 bytes are those of a HEIF; an AVIF can match too."""
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS


def check_length(stream: BinaryIO) -> None:
    """Check that a file is small enough to be read into memory.

    Raises:
        ImageError: it is not.
    """
    if stream.seek(0, 2) > _MAX_BYTES:
        raise ImageError(f"cannot be decoded (a HEIC of more than {_MAX_BYTES:,} bytes)")
    stream.seek(0)


def heif_size(stream: BinaryIO) -> Size:
    """Width and height in pixels of the largest image that decoding a HEIC creates; nothing is decoded.

    Raises:
        ImageError: the file has parts that photographs do not have, or exceeds a limit.
        Exception: the file is damaged.
    """
    stream.seek(0)
    return _Heif(stream.read(_MAX_BYTES)).size()


class _Heif:
    """The parts of a file that determine the sizes of its images, by item number.

    Attributes:
        kinds: the item's type.
        parts: the item's data, in pieces.
        tiles: the items that a grid consists of.
        sizes: the sizes that the item's properties state.
    """

    def __init__(self, data: bytes) -> None:
        described = _only(data, b"meta")
        if len(described) > _MAX_META:
            raise ImageError(f"cannot be decoded (a HEIF whose description has over {_MAX_META:,} bytes)")
        meta = dict(_boxes(described[4:], single=True))
        self._left = _MAX_UNITS
        self.kinds = dict(_kinds(meta[b"iinf"]))
        self.parts = dict(_locations(meta[b"iloc"], data, meta.get(b"idat", b"")))
        self.tiles = _tiles(meta.get(b"iref", b""))
        properties = _only(meta[b"iprp"], b"ipco")
        stated = [_stated(kind, content) for kind, content in _boxes(properties)]
        self.sizes: dict[int, list[Size]] = defaultdict(list)
        self._known: dict[int, Size] = {}
        for kind, content in _boxes(meta[b"iprp"]):
            if kind == b"ipma":
                for item, index in _associations(content):
                    self.sizes[item].append(stated[index - 1] if index else (0, 0))

    def size(self) -> Size:
        """The size of the item with the most pixels."""
        if unusual := set(self.kinds.values()) - _USUAL_ITEMS:
            kind = min(unusual).decode("latin-1")
            raise ImageError(f"cannot be decoded (a HEIF with parts of type {kind!r}, only HEVC is read)")
        sizes = [self._coded(item) for item, kind in self.kinds.items() if kind == b"hvc1"]
        sizes += [self._grid(item) for item, kind in self.kinds.items() if kind == b"grid"]
        return max(sizes, key=_area)

    def _coded(self, item: int) -> Size:
        """The size of a coded image. Its data may contain more sequence parameters."""
        if item in self._known:
            return self._known[item]
        data = b"".join(self.parts[item])
        sizes = list(self.sizes[item])
        place = 0
        while place + 6 <= len(data):
            self._left -= 1
            if self._left < 0:
                raise ImageError("the file has more parts than any image needs")
            length = int.from_bytes(data[place : place + 4], "big")
            sizes += _unit_size(data[place + 4 : place + 4 + min(length, 256)])
            place += 4 + length
        self._known[item] = _around(sizes)
        return self._known[item]

    def _grid(self, item: int) -> Size:
        """The size of a grid: large enough for the size that it states and for all its tiles."""
        data = b"".join(self.parts[item])
        rows, columns = data[2] + 1, data[3] + 1
        tiles = self.tiles[item]
        if len(tiles) != rows * columns or len(tiles) > _MAX_TILES:
            raise ImageError(f"cannot be decoded (a grid of {rows} x {columns} with {len(tiles)} tiles)")
        if any(self.kinds.get(tile) != b"hvc1" for tile in tiles):
            raise ImageError("cannot be decoded (a grid whose tiles are not HEVC)")
        width, height = _around([self._coded(tile) for tile in set(tiles)])
        own = struct.unpack(">2I" if data[1] & 1 else ">2H", data[4 : 12 if data[1] & 1 else 8])
        return _around([(columns * width, rows * height), (own[0], own[1]), *self.sizes[item]])


def _area(size: Size) -> int:
    return size[0] * size[1]


def _around(sizes: list[Size]) -> Size:
    """The smallest size that contains all of them."""
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _boxes(data: bytes, single: bool = False) -> Iterator[tuple[bytes, bytes]]:
    """The type and content of each box. With `single`, a repeated type is an error: readers disagree then."""
    place, seen = 0, set()
    while place + 8 <= len(data):
        length, kind, start = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8], 8
        if length == 1:
            length, start = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        elif length == 0:
            length = len(data) - place
        if length < start or (single and kind in seen):
            name = kind.decode("latin-1")
            raise ImageError(f"cannot be decoded (its box {name!r} is damaged or comes twice)")
        seen.add(kind)
        yield kind, data[place + start : place + length]
        place += length


def _only(data: bytes, kind: bytes) -> bytes:
    """The content of the only top-level box of a type."""
    found = [content for other, content in _boxes(data) if other == kind]
    if len(found) != 1:
        raise ImageError(f"cannot be decoded ({len(found)} boxes {kind.decode()!r} in a HEIF)")
    return found[0]


class _Numbers:
    """Reads big-endian numbers one after the other."""

    def __init__(self, data: bytes, place: int = 0) -> None:
        self.data, self.place = data, place

    def next(self, size: int) -> int:
        """The next number, of `size` bytes; 0 for no bytes."""
        piece = self.data[self.place : self.place + size]
        if len(piece) < size:
            raise ImageError("cannot be decoded (a truncated HEIF)")
        self.place += size
        return int.from_bytes(piece, "big")


def _kinds(iinf: bytes) -> Iterator[tuple[int, bytes]]:
    seen = set()
    for kind, content in _boxes(iinf[6 if iinf[0] == 0 else 8 :]):
        if kind != b"infe" or content[0] < 2:
            continue
        wide = 4 if content[0] > 2 else 2
        item = int.from_bytes(content[4 : 4 + wide], "big")
        if item in seen:
            raise ImageError("cannot be decoded (a HEIF with a duplicate item)")
        seen.add(item)
        yield item, content[6 + wide : 10 + wide]


def _locations(iloc: bytes, file: bytes, idat: bytes) -> Iterator[tuple[int, list[bytes]]]:
    numbers = _Numbers(iloc)
    version = numbers.next(1)
    numbers.next(3)
    widths = numbers.next(2)
    offset_size, length_size, base_size = widths >> 12, widths >> 8 & 15, widths >> 4 & 15
    index_size = widths & 15 if version else 0
    seen, total = set(), 0
    for _ in range(numbers.next(4 if version > 1 else 2)):
        item = numbers.next(4 if version > 1 else 2)
        method = numbers.next(2) & 15 if version else 0
        numbers.next(2)
        base = numbers.next(base_size)
        if method > 1 or item in seen:
            raise ImageError("cannot be decoded (a HEIF with an unusual data layout)")
        seen.add(item)
        parts = []
        for _ in range(numbers.next(2)):
            numbers.next(index_size)
            start, length = base + numbers.next(offset_size), numbers.next(length_size)
            source = idat if method else file
            parts.append(source[start : start + length] if length else source[start:])
            total += len(parts[-1])
            if total > len(file):
                raise ImageError("cannot be decoded (a HEIF whose parts overlap)")
        yield item, parts


def _tiles(iref: bytes) -> dict[int, list[int]]:
    tiles: dict[int, list[int]] = defaultdict(list)
    wide = 4 if iref[:1] > b"\0" else 2
    for kind, content in _boxes(iref[4:]):
        if kind == b"dimg":
            numbers = _Numbers(content)
            item = numbers.next(wide)
            tiles[item] += [numbers.next(wide) for _ in range(numbers.next(2))]
    return tiles


def _associations(ipma: bytes) -> Iterator[tuple[int, int]]:
    """Pairs of an item and the number of one of its properties, counted from 1; 0 means none."""
    numbers = _Numbers(ipma)
    version, flags = numbers.next(1), numbers.next(3)
    for _ in range(numbers.next(4)):
        item = numbers.next(4 if version else 2)
        for _ in range(numbers.next(1)):
            yield item, numbers.next(2) & 0x7FFF if flags & 1 else numbers.next(1) & 0x7F


def _stated(kind: bytes, content: bytes) -> Size:
    """The size that a property states: the image's, or the largest in its decoder parameters; else (0, 0)."""
    if kind == b"ispe":
        width, height = struct.unpack(">2I", content[4:12])
        return width, height
    sizes: list[Size] = [(0, 0)]
    if kind == b"hvcC":
        numbers = _Numbers(content, 22)
        for _ in range(numbers.next(1)):
            numbers.next(1)
            for _ in range(numbers.next(2)):
                length = numbers.next(2)
                sizes += _unit_size(content[numbers.place : numbers.place + length])
                numbers.place += length
    return _around(sizes)


def _unit_size(unit: bytes) -> list[Size]:
    """The size in an HEVC unit, as a list of one; empty if the unit is not a sequence parameter set."""
    if len(unit) < 3 or unit[0] >> 1 & 63 != _SEQUENCE_PARAMETERS:
        return []
    bits = _Bits(unit[2:256].replace(b"\0\0\3", b"\0\0"))
    bits.skip(4)
    layers = bits.number(3)
    bits.skip(1 + 88 + 8)  # the general profile and level
    flags = [(bits.number(1), bits.number(1)) for _ in range(layers)]
    bits.skip(2 * (8 - layers) if layers else 0)
    bits.skip(sum(88 * profile + 8 * level for profile, level in flags))
    bits.exponential()
    if bits.exponential() == 3:  # three planes, perhaps apart
        bits.skip(1)
    return [(bits.exponential(), bits.exponential())]


class _Bits:
    """Reads numbers of some bits one after the other, and numbers in exponential Golomb code."""

    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._place = 0

    def skip(self, count: int) -> None:
        self._place += count

    def number(self, count: int) -> int:
        self._place += count
        return int(self._bits[self._place - count : self._place], 2)

    def exponential(self) -> int:
        zeros = self._bits.index("1", self._place) - self._place
        self._place += zeros
        return self.number(zeros + 1) - 1
