"""Requests as bytes. An image is encoded once and joined into the JSON of each request that shows it, and a server that
keeps images under their names gets each of them once."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cachetools import LRUCache
from PIL import ExifTags, Image

from vlprm.images import UNREADABLE, content_hash, open_image, png
from vlprm.schema import Region
from vlprm.zoom.policy import ZoomPolicy

FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}  # that every server decodes
MARK = secrets.token_hex(16)  # stands for an image in a request's JSON; no text of a problem can contain it
# vLLM keeps 4 GiB of processed images, of which one of two megapixels takes up to 30 MB.
KEPT = 128
MISSES = 8  # misses after which a server that forgets more than a quarter of its images gets them whole


@dataclass(frozen=True, eq=False)
class ShownImage:
    """The part of a message that shows an image, given as a data URL."""

    url: bytes

    @cached_property
    def name(self) -> str:
        """The name under which servers keep the image: its hash, so that equal names are equal images."""
        return hashlib.sha256(self.url).hexdigest()

    def as_json(self, with_url: bool, with_name: bool) -> tuple[bytes, ...]:
        """The part as JSON, in pieces, because the URL is large."""
        url = (b'{"url": "', self.url, b'"}') if with_url else (b"null",)
        name = (b', "uuid": "', self.name.encode(), b'"') if with_name else ()
        return (b'{"type": "image_url", "image_url": ', *url, *name, b"}")


class KeptImages:
    """The images that a server keeps under their names. `on`: whether it does; see `Servers.learn_names`."""

    def __init__(self) -> None:
        self.on = False
        self.hits = self.misses = 0
        self._names: LRUCache[str, bool] = LRUCache(KEPT)

    def has(self, image: ShownImage) -> bool:
        """Whether the server is believed to have the image."""
        return self.on and self._names.get(image.name, False)

    def answered(self, images: Iterable[ShownImage]) -> None:
        """The server has answered a request with these images."""
        for image in images if self.on else ():
            self.hits += self.has(image)
            self._names[image.name] = True

    def forget(self, images: Iterable[ShownImage]) -> None:
        """The server may have dropped these images: they are sent whole again."""
        for image in images:
            self._names.pop(image.name, None)

    def missed(self) -> None:
        """The server had dropped an image. One that drops many is not asked by name any more."""
        self.misses += 1
        self.on = self.on and (self.misses <= MISSES or self.hits > 3 * self.misses)


def encoded(body: dict[str, Any], kept: KeptImages) -> tuple[bytes, list[ShownImage]]:
    """A request as JSON for a server, and the images that it shows."""
    images: list[ShownImage] = []

    def mark(value: Any) -> str:
        assert isinstance(value, ShownImage), value
        images.append(value)
        return MARK

    first, *texts = json.dumps(body, default=mark).encode().split(f'"{MARK}"'.encode())
    pieces = [first]
    for image, text in zip(images, texts, strict=True):
        pieces += [*image.as_json(with_url=not kept.has(image), with_name=kept.on), text]
    return b"".join(pieces), images


def data_url(image: bytes, region: Region | None, policy: ZoomPolicy) -> bytes:
    """A data URL that decodes to the exact pixels that this process would use: the file as it is, if it does, otherwise
    a PNG."""
    opened = open_image(image, f"image {content_hash(image)}")
    if region is None and (kind := _kind_as_it_is(image)):
        return f"data:{kind};base64,".encode() + base64.b64encode(image)
    shown = opened if region is None else policy.crop(opened, region)
    return b"data:image/png;base64," + base64.b64encode(png(shown))


def _kind_as_it_is(data: bytes) -> str | None:
    """The media type of a file that decodes to the same pixels everywhere: upright, without transparency, colour
    profiles of printers or further frames, 8 bits deep, and no larger than its pixels. None for others."""
    try:
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as file:
            deep = any(";16" in str(tile) for tile in file.tile)
            plain = file.mode in ("RGB", "L") and not deep and not getattr(file, "is_animated", False)
            small = len(data) <= 4 * file.width * file.height + 65536
            file.load()  # a PNG may store its metadata after the pixels
            upright = file.getexif().get(ExifTags.Base.Orientation, 1) == 1
            kind = FORMATS[file.format or ""]
            return kind if plain and small and upright and not file.has_transparency_data else None
    except UNREADABLE:
        return None
