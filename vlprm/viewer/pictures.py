"""Images for a page with up to a thousand of them: each once, small enough, as a data URL."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from vlprm.images import content_hash, open_image

PNG, JPEG = b"\x89PNG", b"\xff\xd8"

# A thousand images of this size are 24 MB as base64. An image is scaled down until it fits.
MAX_BYTES = 18_000
SIDES = (448, 320, 224, 112)  # longer side in pixels; the page shows an image at about the first size
QUALITY = 70


@dataclass(frozen=True)
class Picture:
    """An image as the page shows it: the hash of its file, and the size of the original, whose pixels regions refer
    to."""

    key: str
    width: int
    height: int


def picture(data: bytes) -> Picture | None:
    """The picture of an image file; None if it cannot be read."""
    try:
        image = open_image(data)
    except ValueError:
        return None
    return Picture(content_hash(data), image.width, image.height)


def thumbnail(data: bytes, max_bytes: int = MAX_BYTES) -> bytes:
    """The image as a file of at most `max_bytes`, as large as possible. A small enough PNG or JPEG file is returned
    unchanged."""
    if len(data) <= max_bytes and data.startswith((PNG, JPEG)):
        return data
    image, shown = open_image(data), b""
    for side in SIDES:
        scale = min(1.0, side / max(image.size))
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        shown = _webp(image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0))
        if len(shown) <= max_bytes:
            break
    return shown


def data_url(data: bytes) -> str:
    """The image file as a data URL."""
    return f"data:{media_type(data)};base64,{base64.b64encode(data).decode('ascii')}"


def media_type(data: bytes) -> str:
    """The media type of a file that `thumbnail` returns."""
    return "image/png" if data.startswith(PNG) else "image/jpeg" if data.startswith(JPEG) else "image/webp"


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=QUALITY, method=1)  # 0 is the fastest, 6 the smallest
    return buffer.getvalue()
