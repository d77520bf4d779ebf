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

# Decoded images by file content (one image is opened many times). The largest allowed image fits.
_OPENED: LRUCache[bytes, Image.Image] = LRUCache(1 << 29, getsizeof=lambda image: 4 * image.width * image.height)


def open_image(data: bytes, name: str = "image") -> Image.Image:
    """Decode an encoded file to RGB, first frame only. UserError names the image and the fault.

    The result is cached and shared: do not draw on it.
    """
    return cached(_OPENED, data, lambda: _decoded(data, name))


def _decoded(data: bytes, name: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            size = image.size
            if size[0] * size[1] <= MAX_PIXELS:
                return _rgb(_upright(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        unknown = isinstance(error, UnidentifiedImageError)  # whose text names an object of Python
        cause = "it is not a PNG, JPEG, WebP or other known image" if unknown else error or type(error).__name__
        raise UserError(f"{name} cannot be read ({cause}); create the file again") from error
    raise UserError(f"{name} has {size[0]} x {size[1]} pixels, more than {MAX_PIXELS}; shrink it")


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image upright according to its metadata. Only the orientation is read, because Pillow's own function
    fails on malformed tags."""
    image.load()  # a PNG may store its metadata after the pixels
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, struct.error):
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB with 8 bits per channel, on white where transparent, as qwen-vl-utils and vLLM do."""
    if image.mode.startswith("I") or image.mode == "F":  # Pillow would clip 16-bit values to white
        deep = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        image = Image.fromarray((deep * (255 / _white(image.mode, deep.max()))).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def _white(mode: str, most: float) -> float:
    """The value of white in an image of this mode with maximum value `most`. 16-bit files use their full range; others
    may hold shares, bytes or larger values."""
    if mode.startswith("I;16"):
        return 65_535.0
    if mode == "F" and most <= 1:
        return 1.0
    return 255.0 if most <= 255 else max(65_535.0, most)


def png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def encoded(image: Image.Image) -> bytes:
    """Encode a decoded image so that `open_image` gives the same pixels as for its own file."""
    return png(_rgb(_upright(image)))


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
    around = whole_pixels(region)
    left, top = max(0, int(around.x0)), max(0, int(around.y0))
    right, bottom = min(image.width, int(around.x1)), min(image.height, int(around.y1))
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


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


def check_aspect(image: Image.Image, name: str) -> None:
    """ProblemError if an image is too long and narrow for a model."""
    if max(image.size) > MAX_ASPECT * min(image.size):
        size = f"{image.width} x {image.height}"
        raise ProblemError("image_aspect", f"{name} is {size}, with an aspect ratio above {MAX_ASPECT}; pad it")
