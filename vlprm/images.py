"""Images: open untrusted bytes safely, crop, hash by content, and convert between coordinate frames."""

from __future__ import annotations

import hashlib
import io
import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from cachetools import LRUCache
from PIL import ExifTags, Image, UnidentifiedImageError

from vlprm.cache import cached
from vlprm.errors import ProblemError, UserError
from vlprm.schema import BLANK, Region

MAX_PIXELS = 100_000_000  # larger images (decompression bombs) are refused before decoding

DEPTHS = (255.0, 1023.0, 4095.0, 65_535.0)  # the highest values of 8, 10, 12 and 16 bits
TOO_LONG = ("Decompressed data too large", "MAX_TEXT_MEMORY")  # Pillow about the comments and profiles of a PNG
# What Pillow raises on damaged files and metadata.
UNREADABLE = (
    OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, EOFError, RuntimeError,
    struct.error, Image.DecompressionBombError,
)  # fmt: skip

# How to turn an image upright, by the orientation in its metadata.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
PNG_METADATA = (b"eXIf", b"Raw profile type", b"com.adobe.xmp")  # may say the orientation, even after the pixels


def _room(limit: int) -> LRUCache[bytes, Image.Image]:
    return LRUCache(limit, getsizeof=lambda image: 4 * image.width * image.height)


DECODED_BYTES = 1 << 29  # kept at most, unless a process asks for less; the largest allowed image fits
_OPENED = _room(DECODED_BYTES)  # decoded images by file content, because one image is opened many times


def keep_decoded(limit: int) -> None:
    """Keep at most this many bytes of decoded images in this process from now on."""
    global _OPENED
    _OPENED = _room(limit)


def open_image(data: bytes, name: str = "image") -> Image.Image:
    """Decode an encoded file to RGB, first frame only. UserError names the image and the fault.

    The result is cached and shared: do not draw on it.
    """
    return cached(_OPENED, data, lambda: _decoded(data, name))


def image_size(data: bytes, name: str = "image") -> tuple[int, int]:
    """(width, height) of the image that `open_image` gives, from the file's head where that tells it. UserError where
    the file is not an image; pixels that cannot be decoded go unnoticed."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            is_small = image.width * image.height <= MAX_PIXELS
            if is_small and image.format == "PNG" and not any(mark in data for mark in PNG_METADATA):
                return image.size
            if is_small and image.format in ("JPEG", "WEBP"):
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) in SIDEWAYS
                return (image.height, image.width) if turned else image.size
    except UNREADABLE:
        pass  # open_image says why, or reads it after all
    return open_image(data, name).size


def _decoded(data: bytes, name: str) -> Image.Image:
    try:
        return _opened(data, name)
    except ValueError as error:
        if not any(said in str(error) for said in TOO_LONG):
            raise
    return _opened(_without_comments(data), name)


def _opened(data: bytes, name: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            size = image.size
            if size[0] * size[1] <= MAX_PIXELS:
                return _rgb(_upright(image))
    except UnidentifiedImageError as error:
        raise UserError(
            f"{name} cannot be read (not a PNG, JPEG, WebP or other image); create the file again"
        ) from error
    except UNREADABLE as error:
        raise UserError(f"{name} cannot be read ({error or type(error).__name__}); create the file again") from error
    raise UserError(f"{name} has {size[0]} x {size[1]} pixels, more than {MAX_PIXELS}; shrink it")


def _without_comments(data: bytes) -> bytes:
    """A PNG file without the chunks that hold texts or a colour profile."""
    kept, at = [data[:8]], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image upright according to its metadata. Only the orientation is read, because Pillow's own function
    fails on malformed tags."""
    if image.format == "EPS":
        raise ValueError("EPS is a program, which is not run")
    deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))  # empty once loaded
    image.load()  # a PNG may store its metadata after the pixels
    if deep and image.mode.startswith("RGB"):
        _refuse_unused_bits(image)
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except UNREADABLE:
        turn = None
    return image if turn is None else image.transpose(turn)


def _refuse_unused_bits(image: Image.Image) -> None:
    """ValueError if colours of 16 bits use the lowest 12 only: Pillow keeps the 8 highest, and the image is black."""
    colours = np.asarray(image)[..., :3]
    if 0 < colours.max() < 16:
        raise ValueError("its 16-bit values are below 4096, so it is black; scale them to 65535")


def _rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB with 8 bits per channel, on white where transparent, as qwen-vl-utils and vLLM do."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _shallow(image)
    if image.mode == "La":
        image = image.convert("LA")  # the only mode that it converts to
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def _shallow(image: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits in 8 bits; Pillow would clip them to white. ValueError for negative values."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    white = _white(image.mode, values.max())
    if values.min() < -0.01 * white:
        raise ValueError(f"its values begin at {values.min():g}; scale them to 0 to 255")
    grey = (values * (255 / white)).clip(0, 255)
    grey[values == image.info.get("transparency")] = 255
    return Image.fromarray(grey.astype(np.uint8))


def _white(mode: str, most: float) -> float:
    """The value of white in an image of this mode with maximum value `most`: the highest of the smallest common depth
    that holds all values. Cameras and scanners store 10 or 12 bits in files of 16, which would be black at full
    range."""
    if mode == "F" and most < 2:  # shares, some of them above 1 after a resampling
        return 1.0
    return next((white for white in DEPTHS if most <= white), most)


def png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def encoded(image: Image.Image) -> bytes:
    """Encode a decoded image so that `open_image` gives the same pixels as for its own file. UserError if it cannot be
    decoded."""
    try:
        return png(_rgb(_upright(image)))
    except UNREADABLE as error:
        raise UserError(f"image cannot be read ({error}); create the file again") from error


class LeadsOut(UserError):
    """A path that leads outside its folder."""


def read_inside(folder: Path, name: Any) -> bytes:
    """Read a file that a record names, from inside this resolved folder. LeadsOut if the path leaves it (by `..`, a
    link, or an absolute path); OSError if the file does not exist."""
    try:
        path = (folder / name).resolve()  # follows links, to detect those that lead out
        inside = path.is_relative_to(folder)
        data: bytes = path.read_bytes() if inside else b""
    except (TypeError, ValueError) as error:  # not a string, or a NUL byte
        raise FileNotFoundError(f"no file {name!r}") from error
    if not inside:
        raise LeadsOut(f"{name} leads out of {folder.name}")
    return data


def content_hash(data: bytes) -> str:
    """Hash of a file's bytes: 16 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()[:16]


def crop(image: Image.Image, region: Region) -> Image.Image:
    """The part of the image inside the region, extended to whole pixels and clipped to the image."""
    return image.crop(crop_box(image.size, region))


def crop_box(size: tuple[int, int], region: Region) -> tuple[int, int, int, int]:
    """The pixels (left, top, right, bottom) that `crop` takes of an image of this size."""
    around = whole_pixels(region)
    left, top = max(0, int(around.x0)), max(0, int(around.y0))
    right, bottom = min(size[0], int(around.x1)), min(size[1], int(around.y1))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def whole_pixels(region: Region) -> Region:
    """The region extended to whole pixels, as it is shown."""
    return Region(
        math.floor(region.x0), math.floor(region.y0), math.ceil(region.x1), math.ceil(region.y1), region.image
    )


def source_of(images: Sequence[bytes], region: Region) -> bytes:
    """The file of the image that a region belongs to. UserError if the problem has no such image."""
    if region.image == BLANK:
        return _blank(math.ceil(region.x1), math.ceil(region.y1))
    if region.image >= len(images):
        raise UserError(f"{region} is on image {region.image}, but the problem has {len(images)}; correct the record")
    return images[region.image]


@lru_cache(64)
def _blank(width: int, height: int) -> bytes:
    return png(Image.new("RGB", (width, height), "white"))


MAX_ASPECT = 200  # long to short side; the limit of Qwen-VL's image processors


def check_aspect(size: tuple[int, int], name: str) -> None:
    """ProblemError if an image of this size is too long and narrow for a model."""
    if max(size) > MAX_ASPECT * min(size):
        said = f"{name} is {size[0]} x {size[1]}, with an aspect ratio above {MAX_ASPECT}; pad it"
        raise ProblemError("image_aspect", said)
