"""Image files with broken metadata or deep values open as a person would see them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from vlprm.errors import UserError
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
    "a user comment of signed fractions": (0x9286, 10, struct.pack("<ii", -1, 0)),
    "a pointer to no other tags": (0x8769, 4, b""),
    "a position that is text": (0x8825, 2, b"abcdefg\0"),
}


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("tag", ODD_TAGS)
def test_a_photo_with_an_odd_tag_is_upright(tag: str, form: str) -> None:
    data = saved(Image.new("RGB", (48, 32)), form, exif=exif(*ODD_TAGS[tag]))
    assert open_image(data).size == (32, 48)
    assert open_image(encoded(Image.open(io.BytesIO(data)))).size == (32, 48)


@pytest.mark.filterwarnings("ignore")
def test_no_byte_of_the_metadata_costs_the_pixels() -> None:
    data, rng = saved(Image.new("RGB", (48, 32)), "JPEG", exif=exif(*ODD_TAGS["a maker that is a fraction"])), Random(0)
    start = data.index(b"Exif\0\0") + 6
    for _ in range(300):
        spoilt = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            spoilt[start + rng.randrange(46)] = rng.randrange(256)
        assert sorted(open_image(bytes(spoilt)).size) == [32, 48]


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_metadata_that_is_none_costs_no_pixels(form: str) -> None:
    assert open_image(saved(Image.new("RGB", (48, 32)), form, exif=b"Exif\0\0nothing of the kind")).size == (48, 32)


GREY = np.full((32, 48), 50)
GREY[:16] = 200
DEEP = {
    "float to 255": (GREY.astype(np.float32), "TIFF"),
    "float to 1": ((GREY / 255).astype(np.float32), "TIFF"),
    "float to 4,095": ((GREY * 4095 / 255).astype(np.float32), "TIFF"),
    "float to 65,535": ((GREY * 257).astype(np.float32), "TIFF"),
    "float with holes": (np.where(np.arange(48) == 40, np.nan, GREY).astype(np.float32), "TIFF"),
    "float with ringing": (np.where(np.arange(48) == 40, 1.03, GREY / 255).astype(np.float32), "TIFF"),
    "float a little below zero": (np.where(np.arange(48) == 40, -1e-3, GREY / 255).astype(np.float32), "TIFF"),
    "32 bits to 255": (GREY.astype(np.int32), "TIFF"),
    "32 bits to 4,095": ((GREY * 4095 / 255).astype(np.int32), "TIFF"),
    "32 bits to 65,535": ((GREY * 257).astype(np.int32), "TIFF"),
    "16 bits": ((GREY * 257).astype(np.uint16), "PNG"),
    "16 bits in a TIFF": ((GREY * 257).astype(np.uint16), "TIFF"),
    "12 of 16 bits": ((GREY * 4095 / 255).astype(np.uint16), "PNG"),
    "12 of 16 bits in a TIFF": ((GREY * 4095 / 255).astype(np.uint16), "TIFF"),
    "10 of 16 bits": ((GREY * 1023 / 255).astype(np.uint16), "PNG"),
    "8 of 16 bits": (GREY.astype(np.uint16), "PNG"),
}


@pytest.mark.parametrize("case", DEEP)
def test_deep_grey_is_seen_as_grey(case: str) -> None:
    values, form = DEEP[case]
    data = saved(Image.fromarray(values), form)
    for file in (data, encoded(Image.open(io.BytesIO(data)))):
        seen = np.asarray(open_image(file))
        assert [int(seen[y, 8, 0]) for y in (8, 24)] == [pytest.approx(200, abs=1), pytest.approx(50, abs=1)]


def deep_png(values: list[int], colour: int, chunks: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A PNG of 4 x 4 pixels with 16 bits per channel and these values in each row."""
    rows = (b"\0" + struct.pack(f">{len(values)}H", *values)) * 4
    body = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, colour, 0, 0, 0)), *chunks, (b"IDAT", zlib.compress(rows))]
    framed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in [*body, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_deep_colours_are_seen_or_refused() -> None:
    assert open_image(deep_png([51400, 12850, 0] * 4, 2)).getpixel((0, 0)) == (200, 50, 0)
    assert open_image(deep_png([0, 0, 0] * 4, 2)).getpixel((0, 0)) == (0, 0, 0)
    with pytest.raises(
        ValueError, match=r"photo cannot be read .its 16-bit values are below 4096, so it is black; scale"
    ):
        open_image(deep_png([3200, 800, 0] * 4, 2), "photo")
    clear = deep_png([0, 0, 51400, 51400], 0, [(b"tRNS", struct.pack(">H", 0))])
    assert [open_image(clear).getpixel((x, 0)) for x in (0, 3)] == [(255,) * 3, (200,) * 3]


@pytest.mark.parametrize(("dtype", "least"), [(np.float32, -1.0), (np.int32, -1000)])
def test_values_below_zero_are_refused(dtype: Any, least: float) -> None:
    values = np.linspace(least, -least, 48 * 32).reshape(32, 48).astype(dtype)
    with pytest.raises(
        ValueError, match=rf"scan cannot be read .its values begin at {least:g}; scale them to 0 to 255"
    ):
        open_image(saved(Image.fromarray(values), "TIFF"), "scan")


@pytest.mark.parametrize("mode", ["L", "LA", "La", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I", "F", "I;16"])
def test_an_image_of_any_mode_is_encoded_as_it_looks(mode: str) -> None:
    image = Image.new("L", (48, 32), 90)
    for step in {"La": ["LA", "La"], "RGBa": ["RGBA", "RGBa"]}.get(mode, [mode]):
        image = image.convert("RGB" if step == "YCbCr" and image.mode == "L" else step).convert(step)
    seen = open_image(encoded(image)).getpixel((8, 8))
    assert seen == (pytest.approx(90, abs=1),) * 3


def _noted(**options: Any) -> bytes:
    return saved(Image.new("RGB", (48, 32), "red"), "PNG", **options)


def test_comments_of_any_length_cost_no_pixels() -> None:
    short, long, many = (PngImagePlugin.PngInfo() for _ in range(3))
    short.add_text("comment", "x" * 2_000_000, zip=True)
    long.add_itxt("comment", "x" * 2_000_000, zip=True)
    for n in range(80):
        many.add_text(f"comment {n}", "x" * 900_000, zip=True)
    after = _noted()
    notes = _noted(pnginfo=short)
    at = notes.index(b"zTXt") - 4
    chunk = notes[at : at + 12 + int.from_bytes(notes[at : at + 4], "big")]
    behind = after[:-12] + chunk + after[-12:]  # behind the pixels
    for data in (notes, _noted(pnginfo=long), _noted(pnginfo=many), _noted(icc_profile=b"x" * 2_000_000), behind):
        assert open_image(data).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "data",
    [b"", b"no image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"],
)
def test_what_is_no_image_is_said_in_one_sentence(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^photo cannot be read \(not a PNG, JPEG, WebP or other image\); create the"):
        open_image(data, "photo")


def test_a_program_is_not_run() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(ValueError, match="EPS is a program, which is not run"):
        open_image(eps)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "AVIF", "DDS", "TIFF", "GIF"])
def test_a_damaged_file_is_read_or_refused(form: str) -> None:
    """By no other error, whatever its bytes: one file must not end a run."""
    data, rng = saved(Image.effect_noise((40, 30), 80).convert("RGB"), form), Random(1)
    for _ in range(150):
        spoilt = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            spoilt[rng.randrange(min(200, len(data)))] = rng.randrange(256)
        with suppress(UserError):
            open_image(bytes(spoilt))


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_an_image_that_was_cut_short_is_not_encoded(form: str) -> None:
    data = saved(Image.effect_noise((40, 30), 80).convert("RGB"), form)
    with pytest.raises(UserError, match="image cannot be read"):
        encoded(Image.open(io.BytesIO(data[: len(data) // 2])))
