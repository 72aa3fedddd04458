"""Pillow's bicubic resizing compiled by numba, only for the pixels that a crop keeps; the bytes are the same.

The arithmetic is that of `src/libImaging/Resample.c` for 8 bits: weights in double, then in 22-bit fixed
point; 32-bit sums, rounded and clipped after the rows and again after the columns. Pillow computes the whole
width, one value at a time, before the crop drops a part of it. Here only the part that is kept is computed,
16 values at a time.

Importing this file takes half a second: `resize.py` decides when that is worth it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from ..system.cache import cache_dir

try:
    from llvmlite import ir
    from numba import config, njit, types
    from numba.core import cgutils
    from numba.extending import intrinsic

    AVAILABLE = True
except ModuleNotFoundError:  # the file can still be imported
    AVAILABLE = False

    def intrinsic(function: Callable) -> Callable:
        """Stands in for numba's decorator."""
        return function


warnings.filterwarnings("ignore", "unsafe_ptrs", DeprecationWarning)  # see `_row_pointers`

_BITS = 22
_CHANNELS = 4  # bytes per pixel in Pillow's memory, for RGB too
_TAPS = 4  # pixels weighted in one step
_LANES = _CHANNELS * _TAPS  # values in a vector
_ROWS = 4  # rows computed together, so that weights are loaded once for all of them
# For each mode, the mode to resize in (colours premultiplied by alpha) and the layout of its memory.
_MODES = {"RGB": ("RGB", "RGBX"), "CMYK": ("CMYK", "CMYK"), "RGBA": ("RGBa", "RGBa")}
_SAMPLES = (((97, 61), (40, 25)), ((61, 97), (90, 144)))  # sizes before and after, for `equals_pillow`


def resize_and_crop(
    image: Image.Image, after: tuple[int, int], box: tuple[int, int, int, int]
) -> Image.Image | None:
    """`image.resize(after, BICUBIC).crop(box)` for a square box; None if this code cannot compute it."""
    if image.mode not in _MODES or image.size == after or not all(map(_wide_enough, image.size, after)):
        return None
    memory_mode, raw_mode = _MODES[image.mode]
    image.load()
    core = image.im if memory_mode == image.mode else image.convert(memory_mode).im  # keeps the memory
    rows = _row_pointers(core)
    if rows is None:
        return None
    left, top, right, _ = box
    side = right - left
    pixels = _resample(rows, *image.size, *after, left, top, side)
    done = Image.frombytes(memory_mode, (side, side), pixels.data, "raw", raw_mode).convert(image.mode)
    done.info = image.info.copy()
    return done


def equals_pillow() -> bool:
    """Whether results on noise are equal to Pillow's, byte for byte: Pillow's arithmetic may change."""
    for before, after in _SAMPLES:
        noise = np.random.default_rng(0).integers(0, 256, (before[1], before[0], 3), np.uint8)
        image, side = Image.fromarray(noise), min(after)
        left, top = (after[0] - side) // 2, (after[1] - side) // 2
        box = (left, top, left + side, top + side)
        expected = image.resize(after, Image.Resampling.BICUBIC).crop(box)
        found = resize_and_crop(image, after, box)
        if found is None or found.tobytes() != expected.tobytes():
            return False
    return True


def _wide_enough(before: int, after: int) -> bool:
    """Whether the image is at least as wide as the weights of a pixel, padded to whole steps."""
    taps = math.ceil(2 * max(before / after, 1.0)) * 2 + 1
    return before >= taps + _TAPS


def _row_pointers(core: Any) -> int | None:
    """The address of the table of an image's row addresses; large images are not one block of memory.

    None if Pillow does not give it. Pillow 12, which `pyproject.toml` excludes, will not.
    """
    try:
        return dict(core.unsafe_ptrs)["image32"] or None
    except (AttributeError, KeyError, DeprecationWarning):  # warnings may be errors
        return None


def _compiled(function: Callable) -> Callable:
    """Compile a function at its first call, or load it from our cache; without a cache, compile in memory."""
    if not AVAILABLE:
        return function
    folder = config.CACHE_DIR
    config.CACHE_DIR = folder or str(cache_dir() / "numba")  # read when a function is decorated
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder can be written
        return njit(nogil=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = folder


@intrinsic
def _address_at(_context: Any, _place: Any) -> Any:
    """Read the 64-bit address stored at an address."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))

    return types.int64(types.int64), generate


@intrinsic
def _weigh_rows(
    _context: Any, rows: Any, weights: Any, first_weight: Any, steps: Any, out: Any, first_byte: Any
) -> Any:
    """One pixel of the result in each of `_ROWS` rows: a weighted sum of pixels, rounded and clipped.

    Written in vectors, which no compiler makes of the scalar loop: 4 bytes of 4 pixels times 4 weights.

    Args:
        rows: addresses of the first pixel of each row, a tuple.
        weights: int32 [n, taps], of which those from `first_weight` count, `steps` times `_TAPS`.
        out: uint8 [rows, bytes]; one pixel is written from `first_byte`, and one in each row that follows.
    """
    signature = types.void(rows, weights, first_weight, steps, out, first_byte)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        starts = cgutils.unpack_tuple(builder, arguments[0], _ROWS)
        _, weights, first_weight, steps, out, first_byte = arguments
        weights = context.make_array(signature.args[1])(context, builder, weights)
        out = context.make_array(signature.args[4])(context, builder, out)
        sums = _weighted_sums(builder, starts, builder.gep(weights.data, [first_weight]), steps)
        stride = builder.extract_value(out.strides, 0)
        for row, total in enumerate(sums):
            pixel = _rounded_pixel(builder, total)
            place = builder.add(first_byte, builder.mul(stride, ir.IntType(64)(row)))
            pointer = builder.bitcast(builder.gep(out.data, [place]), pixel.type.as_pointer())
            builder.store(pixel, pointer, align=1)
        return context.get_dummy_value()

    return signature, generate


def _weighted_sums(builder: Any, starts: list[Any], weights: Any, steps: Any) -> list[Any]:
    """A loop over `steps`: for each row, 16 sums (4 bytes of 4 pixels) of pixels times weights, int32."""
    byte, word, size = ir.IntType(8), ir.IntType(32), ir.IntType(64)
    before, loop = builder.block, builder.append_basic_block("step")
    after = builder.append_basic_block("sums")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(size)
    step.add_incoming(size(0), before)
    sums = [builder.phi(ir.VectorType(word, _LANES)) for _ in starts]
    taps = builder.mul(step, size(_TAPS))
    four = ir.VectorType(word, _TAPS)
    weight = builder.load(builder.bitcast(builder.gep(weights, [taps]), four.as_pointer()), align=4)
    weight = _shuffle(builder, weight, [lane // _CHANNELS for lane in range(_LANES)])
    totals = []
    for start, total in zip(starts, sums, strict=True):
        address = builder.add(start, builder.mul(taps, size(_CHANNELS)))
        pointer = builder.inttoptr(address, ir.VectorType(byte, _LANES).as_pointer())
        pixels = builder.zext(builder.load(pointer, align=1), ir.VectorType(word, _LANES))
        totals.append(builder.add(total, builder.mul(pixels, weight)))
        total.add_incoming(_splat(word, 0, _LANES), before)
        total.add_incoming(totals[-1], loop)
    following = builder.add(step, size(1))
    step.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
    builder.position_at_end(after)
    return totals


def _rounded_pixel(builder: Any, total: Any) -> Any:
    """The 16 sums of a row added up to the 4 bytes of one pixel, rounded and clipped."""
    byte, word = ir.IntType(8), ir.IntType(32)
    count = _LANES
    while count > _CHANNELS:
        count //= 2
        low = _shuffle(builder, total, list(range(count)))
        total = builder.add(low, _shuffle(builder, total, list(range(count, 2 * count))))
    total = builder.add(total, _splat(word, 1 << (_BITS - 1), _CHANNELS))
    total = builder.ashr(total, _splat(word, _BITS, _CHANNELS))
    for sign, limit in (("<", 0), (">", 255)):
        bound = _splat(word, limit, _CHANNELS)
        total = builder.select(builder.icmp_signed(sign, total, bound), bound, total)
    return builder.trunc(total, ir.VectorType(byte, _CHANNELS))


def _splat(kind: ir.Type, value: int, count: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(kind, count), [value] * count)


def _shuffle(builder: Any, vector: Any, order: list[int]) -> Any:
    nothing = ir.Constant(vector.type, ir.Undefined)
    return builder.shuffle_vector(
        vector, nothing, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
    )


@_compiled
def _bicubic(x: float) -> float:
    """The cubic convolution kernel with a = -0.5, in Pillow's order of operations."""
    a, x = -0.5, abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    if x < 2.0:
        return (((x - 5) * x + 8) * x - 4) * a
    return 0.0


@_compiled
def _weights(before: int, after: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first source pixels, int64 [count], and weights, int32 [count, taps], of `count` result pixels.

    `first` is the first of these pixels. Weights are padded with zeros to whole steps. Near the end of the
    image they start earlier, so that they end within it.
    """
    scale = before / after
    stretch = max(scale, 1.0)
    reach = 2.0 * stretch
    taps = (int(math.ceil(reach)) * 2 + _TAPS) // _TAPS * _TAPS  # noqa: RUF046 - a float in numba
    starts = np.empty(count, np.int64)
    fixed = np.zeros((count, taps), np.int32)
    exact = np.empty(taps, np.float64)
    for i in range(count):
        center = (first + i + 0.5) * scale
        start = max(int(center - reach + 0.5), 0)
        number = min(int(center + reach + 0.5), before) - start
        total = 0.0
        for k in range(number):
            exact[k] = _bicubic((k + start - center + 0.5) * (1.0 / stretch))
            total += exact[k]
        starts[i] = min(start, before - taps)
        for k in range(number):
            weight = exact[k] / total if total != 0.0 else exact[k]
            fixed[i, start - starts[i] + k] = int(weight * (1 << _BITS) + (-0.5 if weight < 0 else 0.5))
    return starts, fixed


@_compiled
def _resample(
    rows: int, width: int, height: int, width_after: int, height_after: int, left: int, top: int, side: int
) -> np.ndarray:
    """Resize an image and cut out a square, uint8 [side, 4 * side].

    `rows` is the address of the table of row addresses, with 4 bytes per pixel. `left` and `top` are the
    corner of the square in the resized image.
    """
    columns, column_weights = _weights(width, width_after, left, side)
    lines, line_weights = _weights(height, height_after, top, side)
    taps = column_weights.shape[1]
    first = lines[0]
    count = lines[side - 1] + line_weights.shape[1] - first
    narrow = np.empty((count + _ROWS, _CHANNELS * side), np.uint8)  # rows resized, columns not yet
    end = rows + 8 * (first + count - 1)
    for y in range(0, count, _ROWS):
        at = rows + 8 * (first + y)
        line0, line1 = _address_at(at), _address_at(min(at + 8, end))
        line2, line3 = _address_at(min(at + 16, end)), _address_at(min(at + 24, end))
        offset = y * _CHANNELS * side
        for x in range(side):
            start = _CHANNELS * columns[x]
            pixels = (line0 + start, line1 + start, line2 + start, line3 + start)
            _weigh_rows(pixels, column_weights, x * taps, taps // _TAPS, narrow, offset + _CHANNELS * x)
    out = np.empty((side, _CHANNELS * side), np.uint8)
    sums = np.empty(_CHANNELS * side, np.int32)
    for y in range(side):
        sums[:] = 1 << (_BITS - 1)
        for k in range(line_weights.shape[1]):
            weight = line_weights[y, k]
            line = narrow[lines[y] - first + k]
            for x in range(len(sums)):
                sums[x] += weight * line[x]
        for x in range(len(sums)):
            out[y, x] = min(max(sums[x] >> _BITS, 0), 255)
    return out
