"""Images for a page that holds a thousand of them: each once, small enough, as a data URL."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from vlprm.images import content_hash, open_image, png

# A thousand of the largest are 32 MB as base64. An image is drawn smaller until it fits.
MAX_BYTES = 24_000
SIDES = (640, 448, 320, 224, 112)
QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """An image as it is shown: the hash of its file, and the size of the original, in whose pixels regions are."""

    key: str
    width: int
    height: int


def picture(data: bytes) -> Picture | None:
    """None where the file cannot be read as an image."""
    try:
        image = open_image(data)
    except ValueError:
        return None
    return Picture(content_hash(data), image.width, image.height)


def thumbnail(data: bytes, max_bytes: int = MAX_BYTES) -> bytes:
    """The image as a PNG or JPEG file of at most so many bytes, as large as fits. A small image keeps its pixels."""
    image = open_image(data)
    shown = b""
    for side in SIDES:
        scale = min(1.0, side / max(image.size))
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        small = image if scale == 1.0 else image.resize(size, Image.Resampling.LANCZOS)
        for shown in (png(small), _jpeg(small)):
            if len(shown) <= max_bytes:
                return shown
    return shown


def data_url(data: bytes) -> str:
    return f"data:{media_type(data)};base64,{base64.b64encode(data).decode('ascii')}"


def media_type(data: bytes) -> str:
    """Of an image file that `thumbnail` or a browser-safe program wrote: PNG where its bytes do not say JPEG."""
    return "image/jpeg" if data.startswith(b"\xff\xd8") else "image/png"


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue()
