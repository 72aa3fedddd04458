"""Preprocess images to pixels, bit for bit as OpenAI's `clip._transform`. Does not import Paddle.

The reference resizes with torchvision: the shorter side to the model's resolution, bicubic with antialiasing,
then a centre crop, and only then RGB, so palettes, alpha and greyscale are resized as they are. For weights
that were trained so, both sides are resized to the resolution, without a crop, as in cn-clip's
`image_transform`. Images of more than 8 bits and floats, on which the reference fails or clips, are scaled to
8 bits first. The rules are the same for files, bytes, PIL images and arrays:

- The largest value determines the scale. For integers, white is the maximum of the smallest usual bit depth
  that holds all values: 8, 10, 12, 14, 16, 24, 31 or 32 bits. So 12-bit values in 16 bits are not dark.
- For floats, white is 1, or the maximum of one of those depths, with 20 % of headroom for overshooting
  values, which are clipped.
- Images with values far below zero (at least a quarter of the largest) are signed: zero is grey, and black is
  as far below it as white is above. Smaller negative values are clipped.
- NaN is black; infinities are black or white.
- Greyscale integers and floats in 0..255 are processed exactly as in the reference.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

from ..config import Preprocessing
from ..errors import ImageError
from ..system.reading import require_regular
from .bit_depth import narrow_array, narrow_image
from .bounded_reader import BoundedReader
from .decoded_size import decoded_size
from .heif import HEIF_SUFFIXES, NEEDS_EXTRA, looks_like_heif, reads_heif, register_heif
from .jpeg_scans import JPEG, check_scans
from .resize import RESIZE

# Pillow warns of damaged EXIF and the like. Filtered globally, because `catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")

ImageInput = Image.Image | np.ndarray | bytes
"""A PIL image, an HWC BGR array (PaddleHub's convention, OpenCV's order), or an encoded file."""

# Without EPS, which runs Ghostscript, and without formats that are not used for photographs.
FORMATS = "PNG JPEG MPO GIF BMP DIB WEBP TIFF PPM ICO TGA JPEG2000 AVIF HEIF".split()
_MAX_ASPECT = 1_000_000
_MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow's limit for a decompression bomb
_READS = 250_000  # maximum number of reads while decoding; a large photograph needs some thousand
IMAGE_SUFFIXES = set(
    ".png .apng .jpg .jpeg .jpe .jfif .mpo .gif .bmp .dib .webp .tif .tiff .pbm .pgm .ppm .pnm .pfm .ico "
    ".tga .icb .vda .vst .jp2 .j2k .j2c .jpc .jpf .jpx .avif .avifs".split()
) | (HEIF_SUFFIXES if reads_heif() else set())


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing of a model: a function from an image to pixels.

    Attributes:
        resolution: side of the model's square input, in pixels.
        settings: normalisation, resizing, and the background under transparent images.
        exif_rotation: rotate images according to their EXIF orientation. The reference does not.
        fast_jpeg: decode large JPEG files at 1/2, 1/4 or 1/8 of their size, but at least at twice the
            resolution. Several times faster; the pixels differ slightly.
    """

    resolution: int
    settings: Preprocessing
    exif_rotation: bool = False
    fast_jpeg: bool = False

    def open(self, source: ImageInput | str | Path, name: str) -> Image.Image:
        """Decode an image, see `open_image`, apply `exif_rotation`, and convert it to 8 bits.

        Raises:
            ImageError: the image cannot be read or decoded.
        """
        image = open_image(source, name, 2 * self.resolution if self.fast_jpeg else None)
        try:
            return self._settled(image)
        except Exception as error:  # an image's own fault, whatever Pillow raises
            raise _cannot(name, "prepared", error) from error

    def pixels(self, source: ImageInput | str | Path, name: str) -> np.ndarray:
        """Preprocess an image in any form to normalised pixels, float32 [3, R, R].

        Args:
            source: the image.
            name: its name in error messages.

        Raises:
            ImageError: the image cannot be read, decoded or converted.
        """
        image = self.open(source, name)
        try:
            return self(image)
        except Exception as error:  # a mode that Pillow cannot convert, a header that contradicts itself
            raise _cannot(name, "prepared", error) from error

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Preprocess a decoded image to normalised pixels, float32 [3, R, R]."""
        return normalize(self.crop(image), self.settings)

    def crop(self, image: Image.Image) -> np.ndarray:
        """Resize and crop a decoded image to the model's input, RGB uint8 [R, R, 3], before normalisation."""
        image = self._settled(image)
        background, resize = self.settings.background, RESIZE[self.settings.resize]
        if background is None:
            image = resize(image, self.resolution)
        elif image.has_transparency_data:
            # Only our own models have a background, so this need not match the reference. Palettes are
            # converted first: Pillow resizes them by the nearest pixel, which breaks thin lines.
            image = resize(_rgba(image), self.resolution)
            image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
        else:
            image = resize(image if image.mode in ("L", "RGB") else image.convert("RGB"), self.resolution)
        return np.asarray(image.convert("RGB"))

    def _settled(self, image: Image.Image) -> Image.Image:
        """Apply `exif_rotation` and convert to 8 bits; idempotent."""
        if self.exif_rotation:
            image = _upright(image)
        return narrow_image(image, with_alpha=self.settings.background is not None)


def normalize(rgb: np.ndarray, settings: Preprocessing) -> np.ndarray:
    """Scale RGB uint8 [..., R, R, 3] to 0..1 and normalise it: float32 [..., 3, R, R]."""
    mean, std = np.array(settings.mean, np.float32), np.array(settings.std, np.float32)
    scaled = np.empty((*rgb.shape[:-3], 3, *rgb.shape[-3:-1]), np.float32)
    for channel in range(3):  # in place by channel: several times as fast as array expressions
        plane = scaled[..., channel, :, :]
        plane[...] = rgb[..., channel]
        plane /= np.float32(255)
        plane -= mean[channel]
        plane /= std[channel]
    return scaled


def open_image(source: ImageInput | str | Path, name: str, jpeg_side: int | None = None) -> Image.Image:
    """Decode an image completely, from any form.

    Args:
        source: a path, or one of the forms of `ImageInput`.
        name: its name in error messages: its path, or "images[3]".
        jpeg_side: allow decoding a JPEG at reduced size, with both sides at least this; None is exact.

    Raises:
        ImageError: the image cannot be read or decoded.
    """
    if isinstance(source, np.ndarray):
        return _from_bgr(source, name)
    try:
        if isinstance(source, Image.Image):
            with _lock_of(source):
                source.load()
            image = source
        elif isinstance(source, (bytes, bytearray, memoryview)):
            image = _decode(BoundedReader(source, _READS), jpeg_side)
        elif isinstance(source, (str, Path)):
            image = _decode_file(Path(source), jpeg_side)
        else:
            raise ImageError(f"a {type(source).__name__} is not an image: give PIL, a BGR array, or bytes")
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder, not an image") from None
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except Image.UnidentifiedImageError:
        raise ImageError(
            f"{name}: not an image of a supported format ({', '.join(readable_formats())}), or damaged"
        ) from None
    except Exception as error:  # Pillow's decoders raise anything on damaged files
        if isinstance(error, OSError) and error.strerror:  # from the operating system, not from a decoder
            raise ImageError(f"{name}: cannot be read ({error.strerror})") from None
        raise _cannot(name, "decoded", error) from error
    width, height = image.size
    if min(width, height) < 1 or max(width, height) > _MAX_ASPECT * min(width, height):
        raise ImageError(f"{name}: {width} x {height} pixels is not a valid size")
    return image


def image_size(content: bytes) -> tuple[int, int]:
    """Width and height of an encoded image, from its header."""
    with Image.open(io.BytesIO(content), formats=readable_formats()) as image:
        return image.size


def for_display(source: ImageInput | str | Path, name: str, side: int) -> Image.Image:
    """Decode an image for display: RGBA, 8 bits, both sides at most `side` pixels.

    Raises:
        ImageError: the image cannot be read or decoded.
    """
    image = open_image(source, name)
    try:
        image = narrow_image(image, with_alpha=True)
        scale = min(1.0, side / max(image.size))
        width, height = (max(1, round(length * scale)) for length in image.size)
        return _rgba(image).resize((width, height), Image.Resampling.BICUBIC)
    except Exception as error:
        raise _cannot(name, "shown", error) from error


def _rgba(image: Image.Image) -> Image.Image:
    """Convert any mode to RGBA; some need an intermediate mode in Pillow."""
    if image.mode == "RGBA":
        return image
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA") if image.has_transparency_data else image.convert("RGB").convert("RGBA")


def _cannot(name: str, done: str, error: Exception) -> ImageError:
    """The error for an image, with the reason of another exception on one line."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return ImageError(f"{name}: cannot be {done} ({reason})")


def _decode_file(path: Path, jpeg_side: int | None) -> Image.Image:
    require_regular(path)
    with path.open("rb") as stream:
        return _decode(stream, jpeg_side)


def _decode(stream: BinaryIO, jpeg_side: int | None) -> Image.Image:
    if not stream.read(1):
        raise ImageError("the file is empty")
    stream.seek(0)
    try:
        width, height = decoded_size(stream, readable_formats())
    except Image.UnidentifiedImageError:
        stream.seek(0)
        if not reads_heif() and looks_like_heif(stream.read(12)):
            raise ImageError(f"is HEIC or HEIF, {NEEDS_EXTRA}") from None
        raise
    if width * height > _MAX_PIXELS:
        raise ImageError(
            f"cannot be decoded ({width} x {height} pixels, at most {_MAX_PIXELS:,} are allowed)"
        )
    if stream.read(len(JPEG)) == JPEG:
        check_scans(stream)
    stream.seek(0)
    with Image.open(stream, formats=readable_formats()) as image:
        if jpeg_side and image.format == "JPEG":
            image.draft(None, (jpeg_side, jpeg_side))
        image.load()
        return image.copy() if getattr(image, "is_animated", False) else image


_LOCKS = [Lock() for _ in range(64)]


def _lock_of(image: Image.Image) -> Lock:
    """A lock for decoding a PIL image, the same in all threads: decoding is not thread-safe in Pillow."""
    return _LOCKS[id(image) // 64 % len(_LOCKS)]


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_IN = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # keys of Image.info


def _upright(image: Image.Image) -> Image.Image:
    """Rotate an image by its EXIF orientation. (`ImageOps.exif_transpose` fails if any other tag is damaged.)

    Raises:
        ImageError: its EXIF cannot be read.
    """
    tags = Image.new("1", (1, 1))  # a dummy image, because reading EXIF modifies the image
    tags.info = image.info
    try:
        orientation = tags.getexif().get(ExifTags.Base.Orientation)
        turn = _TURNS.get(orientation)  # type: ignore[arg-type]
    except Exception as error:  # Pillow raises anything on damaged EXIF
        reason = str(error) or type(error).__name__
        raise ImageError(
            f"its EXIF is damaged: {reason}; turn exif_rotation off to use the image as stored"
        ) from error
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = {key: value for key, value in image.info.items() if key not in _ORIENTATION_IN}
    return turned


@cache
def readable_formats() -> list[str]:
    """The formats of `FORMATS` that this installation of Pillow can read."""
    Image.init()
    register_heif()
    return [name for name in FORMATS if name in Image.OPEN]


def _from_bgr(array: np.ndarray, name: str) -> Image.Image:
    """Convert an array [H, W, 3] in BGR, [H, W, 4] in BGRA, or [H, W] grey to PIL, see the rules above."""
    if array.dtype.kind not in "uifb":
        raise ImageError(f"{name}: an array of {array.dtype}, expected numbers, usually uint8 in BGR order")
    if array.size == 0:
        raise ImageError(f"{name}: an empty array of shape {list(array.shape)}")
    array = np.asarray(array)
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
        return Image.fromarray(_grey(array.reshape(array.shape[:2])))
    if array.ndim == 3 and array.shape[2] in (3, 4):
        order = [2, 1, 0, 3][: array.shape[2]]  # BGR(A) -> RGB(A)
        return Image.fromarray(np.ascontiguousarray(narrow_array(array)[:, :, order]))
    raise ImageError(f"{name}: an array of shape {list(array.shape)}, expected [height, width, 3]")


def _grey(array: np.ndarray) -> np.ndarray:
    """Convert a grey array to a type that Pillow supports, so that it is processed like a file."""
    if array.dtype == bool:
        array = narrow_array(array)
    if array.dtype not in (np.uint8, np.uint16):
        fits = array.dtype.kind in "ui" and array.min() >= -(2**31) and array.max() < 2**31
        array = array.astype(np.int32 if fits else np.float32)
    return np.ascontiguousarray(array)
