"""Images: open untrusted bytes safely, crop, hash by content, and convert between coordinate frames."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vlprm.cache import ByteCache
from vlprm.schema import Region

MAX_PIXELS = 100_000_000  # a decompression bomb is refused before it is decoded


# Decoded images, 4 bytes a pixel, by their files: one is asked for many times. The largest that is opened fits.
_OPENED: ByteCache[bytes, Image.Image] = ByteCache(
    1 << 29, lambda data, image: len(data) + 4 * image.width * image.height
)


def open_image(data: bytes, name: str = "image") -> Image.Image:
    """Decode an encoded file to RGB, first frame only. ValueError names the image and what is wrong with it.

    What this returns is kept and given out again: do not draw on it.
    """
    return _OPENED.get(data, lambda: _decoded(data, name))


def _decoded(data: bytes, name: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{name} has {image.width} x {image.height} pixels, more than {MAX_PIXELS}; shrink it")
            return _rgb(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read ({error or type(error).__name__}); make the file again") from error


def _rgb(image: Image.Image) -> Image.Image:
    """Upright, in 8 bits a channel; what is transparent lies on white, as in qwen-vl-utils and vLLM."""
    if image.mode.startswith("I") or image.mode == "F":  # Pillow would clip 16 bits to white
        deep = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((deep * (255 / max(65_535.0, deep.max()))).clip(0).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def encoded(image: Image.Image) -> bytes:
    """A decoded image as a file from which `open_image` gives the pixels that it would give of the image's own file."""
    return png(_rgb(ImageOps.exif_transpose(image)))


class LeadsOut(ValueError):
    """A name of a file that leads out of the folder it has to be in."""


def read_inside(folder: Path, name: Any) -> bytes:
    """A file that a record names, from this resolved folder and never from outside of it. LeadsOut where the name leads
    out of it (by `..`, a link, or from the root); OSError where there is no such file."""
    try:
        path = (folder / name).resolve()  # follows links, so that one that leads out is seen
        inside = path.is_relative_to(folder)
        data: bytes = path.read_bytes() if inside else b""
    except (TypeError, ValueError) as error:  # it is no text, or has a NUL byte
        raise FileNotFoundError(f"no file {name!r}") from error
    if not inside:
        raise LeadsOut(f"{name} leads out of {folder.name}")
    return data


def content_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def crop(image: Image.Image, region: Region) -> Image.Image:
    """The part of the image that the region covers, widened to whole pixels and clipped to the frame."""
    left, top = max(0, int(region.x0)), max(0, int(region.y0))
    right, bottom = min(image.width, -int(-region.x1 // 1)), min(image.height, -int(-region.y1 // 1))
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


Box = tuple[float, float, float, float]
Size = tuple[int, int]


def _scaled(box: Box, from_size: tuple[float, float], to_size: tuple[float, float]) -> Box:
    sx, sy = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy


# A dialect is how a checkpoint writes boxes. It is declared by the checkpoint, never guessed from the values.
# `original` and `resized` are (width, height): of the image file, and of what the vision tower saw.
DIALECTS: dict[str, Callable[[Size, Size], tuple[float, float]]] = {
    "absolute_resized": lambda original, resized: resized,
    "relative_1000": lambda original, resized: (1000, 1000),
    "relative_1": lambda original, resized: (1, 1),
}


def to_region(box: Box, dialect: str, original: Size, resized: Size) -> Region:
    """A model's box as a Region of the original image. ValueError if the corners are not in order."""
    return Region(*_scaled(box, _frame(dialect, original, resized), original))


def from_region(region: Region, dialect: str, original: Size, resized: Size) -> Box:
    """A Region as the numbers that a model of this dialect writes (not rounded)."""
    return _scaled((region.x0, region.y0, region.x1, region.y1), original, _frame(dialect, original, resized))


def _frame(dialect: str, original: Size, resized: Size) -> tuple[float, float]:
    if dialect not in DIALECTS:
        raise ValueError(f"unknown box dialect {dialect!r}; declare one of {', '.join(DIALECTS)} in vlprm.json")
    return DIALECTS[dialect](original, resized)
