"""Image files with broken metadata or deep values open as a person would see them."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from vlprm.images import encoded, open_image


def saved(image: Image.Image, form: str, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **more)
    return file.getvalue()


def exif(tag: int, kind: int, more: bytes) -> bytes:
    """EXIF data with orientation 6 and one tag of this type."""
    head = b"II*\0" + struct.pack("<IH", 8, 2) + struct.pack("<HHIHH", 0x112, 3, 1, 6, 0)
    return b"Exif\0\0" + head + struct.pack("<HHIII", tag, kind, 1 if kind == 5 else 8, 38, 0) + more


ODD_TAGS = {
    "a maker that is a fraction": (0x10F, 5, struct.pack("<II", 1, 2)),
    "a resolution that is text": (0x11A, 2, b"abcdefg\0"),
    "a date that is a fraction": (0x132, 5, struct.pack("<II", 7, 0)),
}


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@pytest.mark.parametrize("tag", ODD_TAGS)
def test_a_photo_with_an_odd_tag_is_upright(tag: str, form: str) -> None:
    data = saved(Image.new("RGB", (48, 32)), form, exif=exif(*ODD_TAGS[tag]))
    assert open_image(data).size == (32, 48)
    assert open_image(encoded(Image.open(io.BytesIO(data)))).size == (32, 48)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_metadata_that_is_none_costs_no_pixels(form: str) -> None:
    assert open_image(saved(Image.new("RGB", (48, 32)), form, exif=b"Exif\0\0nothing of the kind")).size == (48, 32)


GREY = np.full((32, 48), 50)
GREY[:16] = 200
DEEP = {
    "float to 255": (GREY.astype(np.float32), "TIFF"),
    "float to 1": ((GREY / 255).astype(np.float32), "TIFF"),
    "float to 65,535": ((GREY * 257).astype(np.float32), "TIFF"),
    "float with holes": (np.where(np.arange(48) == 40, np.nan, GREY).astype(np.float32), "TIFF"),
    "32 bits to 255": (GREY.astype(np.int32), "TIFF"),
    "32 bits to 65,535": ((GREY * 257).astype(np.int32), "TIFF"),
    "16 bits": ((GREY * 257).astype(np.uint16), "PNG"),
    "16 bits in a TIFF": ((GREY * 257).astype(np.uint16), "TIFF"),
}


@pytest.mark.parametrize("case", DEEP)
def test_deep_grey_is_seen_as_grey(case: str) -> None:
    values, form = DEEP[case]
    seen = np.asarray(open_image(saved(Image.fromarray(values), form)))
    assert [int(seen[y, 8, 0]) for y in (8, 24)] == [pytest.approx(200, abs=1), pytest.approx(50, abs=1)]


def test_a_png_with_a_large_comment_is_named() -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", "x" * 2_000_000, zip=True)
    data = saved(Image.new("RGB", (48, 32), "red"), "PNG", pnginfo=notes)
    with pytest.raises(ValueError, match=r"^image 7 cannot be read \(.*\); create the file again$"):
        open_image(data, "image 7")
