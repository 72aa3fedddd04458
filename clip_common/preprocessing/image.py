"""Images to pixels, bit for bit what OpenAI's `clip._transform` feeds the model. No framework in here.

The reference resizes with torchvision: shorter side to the model's resolution, bicubic with antialiasing,
centre crop, and only then RGB, so palettes, alpha and greyscale are resized as they are. Where it fails or
clips, on greyscale of more than 8 bits, ours scales to 8 bits first.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..config import Preprocessing
from ..errors import ImageError
from .resize import resize_and_crop

# Damaged EXIF and the like; bombs are an error of Pillow's. Set once: `catch_warnings` is not for threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

ImageInput = Image.Image | np.ndarray | bytes
"""A PIL image, an HWC BGR uint8 array (PaddleHub's convention, OpenCV's order), or an encoded file."""

# Never EPS, which runs a program; nor the formats that nobody stores photographs in.
FORMATS = "PNG JPEG MPO GIF BMP DIB WEBP TIFF PPM ICO TGA JPEG2000 AVIF".split()
_MAX_ASPECT = 1_000_000
IMAGE_SUFFIXES = set(
    ".png .jpg .jpeg .jpe .jfif .gif .bmp .dib .webp .tif .tiff .ppm .pgm .ico .tga .jp2 .avif".split()
)


@dataclass(frozen=True)
class Preprocess:
    """A model's preprocessing, as a function from an image to pixels.

    Attributes:
        resolution: side of the square that the model sees, in pixels.
        settings: normalisation, and the background under transparent images.
        exif_rotation: turn images as their EXIF tag says. The reference does not, so neither do we
            unless asked.
        fast_jpeg: decode large JPEG photographs at a half, a quarter or an eighth of their size, never below
            twice the resolution. Several times faster on those, and the pixels differ a little.
    """

    resolution: int
    settings: Preprocessing
    exif_rotation: bool = False
    fast_jpeg: bool = False

    def open(self, source: ImageInput | str | Path, name: str) -> Image.Image:
        """Decode an image, see `open_image`; a JPEG only as large as is needed, with `fast_jpeg`."""
        return open_image(source, name, 2 * self.resolution if self.fast_jpeg else None)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """A decoded image to normalised pixels, float32 [3, R, R]."""
        return normalize(self.crop(image), self.settings)

    def crop(self, image: Image.Image) -> np.ndarray:
        """A decoded image to the square that the model sees, RGB uint8 [R, R, 3]."""
        if self.exif_rotation:
            image = ImageOps.exif_transpose(image) or image
        image = _to_8_bit(image)
        background = self.settings.background
        if background is None:
            image = resize_and_crop(image, self.resolution)
        else:
            # A model of our own owes the reference nothing: Pillow resizes palettes by the nearest
            # pixel, which breaks thin lines, so they too become colours first.
            image = resize_and_crop(image.convert("RGBA"), self.resolution)
            image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
        return np.asarray(image.convert("RGB"))


def normalize(rgb: np.ndarray, settings: Preprocessing) -> np.ndarray:
    """RGB uint8 [..., R, R, 3] to float32 [..., 3, R, R]: to 0..1, less the mean, over the deviation."""
    mean, std = np.array(settings.mean, np.float32), np.array(settings.std, np.float32)
    scaled = (rgb.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))  # ... H W C -> ... C H W


def open_image(source: ImageInput | str | Path, name: str, jpeg_side: int | None = None) -> Image.Image:
    """Decode an image, whole, whatever form it comes in.

    Args:
        source: a path, or one of the forms of `ImageInput`.
        name: what to call it in an error: its path, or "images[3]".
        jpeg_side: a JPEG's shorter side may be decoded smaller, but not smaller than this; None is exact.

    Raises:
        ImageError: naming the image and what is wrong with it.
    """
    if isinstance(source, np.ndarray):
        return _from_bgr(source, name)
    try:
        if isinstance(source, Image.Image):
            source.load()
            image = source
        elif isinstance(source, (bytes, bytearray)):
            image = _decode(io.BytesIO(source), len(source), jpeg_side)
        elif isinstance(source, (str, Path)):
            image = _decode(Path(source), Path(source).stat().st_size, jpeg_side)
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
            f"{name}: not an image of a supported format ({', '.join(FORMATS)}), or damaged"
        ) from None
    except Exception as error:  # Pillow's decoders raise anything on damaged files
        raise ImageError(f"{name}: cannot be decoded ({str(error) or type(error).__name__})") from error
    width, height = image.size
    if min(width, height) < 1 or max(width, height) > _MAX_ASPECT * min(width, height):
        raise ImageError(f"{name}: {width} x {height} pixels is not an image's shape")
    return image


def _decode(file: Path | io.BytesIO, size: int, jpeg_side: int | None) -> Image.Image:
    if size == 0:
        raise ImageError("the file is empty")
    with Image.open(file, formats=readable_formats()) as image:
        if jpeg_side and image.format == "JPEG":
            image.draft(None, (jpeg_side, jpeg_side))
        image.load()
        return image.copy() if getattr(image, "is_animated", False) else image


@cache
def readable_formats() -> list[str]:
    """Those of `FORMATS` that this Pillow can read."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _from_bgr(array: np.ndarray, name: str) -> Image.Image:
    """HWC BGR (or BGRA, or HW grey) uint8 to PIL."""
    if array.dtype != np.uint8:
        raise ImageError(f"{name}: an array of {array.dtype}, expected uint8 in BGR order, 0 to 255")
    if array.size == 0:
        raise ImageError(f"{name}: an empty array of shape {list(array.shape)}")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
        return Image.fromarray(np.ascontiguousarray(array.reshape(array.shape[:2])))
    if array.ndim == 3 and array.shape[2] in (3, 4):
        order = [2, 1, 0, 3][: array.shape[2]]  # BGR(A) -> RGB(A)
        return Image.fromarray(np.ascontiguousarray(array[:, :, order]))
    raise ImageError(f"{name}: an array of shape {list(array.shape)}, expected [height, width, 3]")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Greyscale of more than 8 bits, scaled; any other image as it is.

    16-bit modes use their whole range. Modes I and F hold anything: what stays below 256 is left to the
    reference's own path, and more is taken for 16 bits, as Pillow reads 16-bit PNG into I.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    wide = np.nan_to_num(np.asarray(image).astype(np.float32), posinf=65535, neginf=0)
    if image.mode in ("I", "F") and wide.max() <= 255:
        return image
    return Image.fromarray(np.clip(np.rint(wide / 257), 0, 255).astype(np.uint8))
