"""What is sent for an image: the pixels of this process, encoded once, and once a server that keeps it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from tests.stand_in import Answer, Body, StandIn, completion, config_of
from vlprm.images import open_image
from vlprm.schema import Region
from vlprm.serving import client as client_module
from vlprm.serving.client import Servers, user_turn
from vlprm.serving.wire import MISSES, KeptImages, ShownImage, data_url, encoded
from vlprm.zoom.policy import ZoomPolicy


def photo(mode: str = "RGB", form: str = "JPEG", size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    buffer = io.BytesIO()
    gradient = Image.linear_gradient("L").resize(size)
    image = Image.merge("RGB", (gradient, gradient.rotate(90, expand=False), gradient.rotate(180)))
    image.convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def sideways() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return photo(exif=exif)


def deep() -> bytes:
    """A PNG of 16 bits a colour, which Pillow opens as RGB."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + b"".join(struct.pack(">HHH", 1000 * x, 60000, 300) for x in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b"")


AS_IT_IS = {
    "JPEG": photo(),
    "grey JPEG": photo("L"),
    "PNG": photo(form="PNG"),
    "WebP": photo(form="WEBP"),
}
MADE_ANEW = {
    "turned by its metadata": sideways(),
    "transparent": photo("RGBA", "PNG"),
    "palette": photo("P", "PNG"),
    "inks": photo("CMYK"),
    "16 bits": deep(),
    "two frames": photo(form="WEBP", save_all=True, append_images=[Image.new("RGB", (64, 48))]),
    "another format": photo(form="BMP"),
    "larger than its pixels": photo() + b"\0" * 100_000,
}


def decoded(url: bytes) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(b",")[2])))


@pytest.mark.parametrize("name", AS_IT_IS)
def test_a_file_that_every_server_decodes_alike_is_sent_as_it_is(name: str) -> None:
    url = data_url(AS_IT_IS[name], None, ZoomPolicy())
    head, _, data = url.partition(b";base64,")
    assert head == b"data:image/" + name.split()[-1].lower().encode()
    assert base64.b64decode(data) == AS_IT_IS[name]


@pytest.mark.parametrize("name", MADE_ANEW)
def test_other_files_are_sent_as_the_pixels_that_are_processed_here(name: str) -> None:
    url = data_url(MADE_ANEW[name], None, ZoomPolicy())
    assert url.startswith(b"data:image/png;")
    assert base64.b64decode(url.partition(b",")[2]) != MADE_ANEW[name]
    sent = decoded(url)
    assert sent.mode == "RGB"
    assert sent.tobytes() == open_image(MADE_ANEW[name]).tobytes()


def test_a_crop_is_its_pixels_without_loss() -> None:
    region, policy = Region(8, 8, 40, 40), ZoomPolicy()
    sent = decoded(data_url(photo(), region, policy))
    assert sent.tobytes() == policy.crop(open_image(photo()), region).tobytes()


def test_a_request_is_the_json_of_its_texts_and_images() -> None:
    shown = ShownImage(b"data:image/png;base64,AAAA")
    text = 'a "quoted" text, \\ and \N{SNOWMAN}'
    body = {"model": "m", "messages": [user_turn([shown, shown], text), user_turn([], text)], "n": 2}
    content, images = encoded(body, KeptImages())
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    told = {"type": "text", "text": text}
    turns = [{"role": "user", "content": [part, part, told]}, {"role": "user", "content": [told]}]
    assert json.loads(content) == {"model": "m", "messages": turns, "n": 2}
    assert images == [shown, shown]


class Keeper:
    """Answers as vLLM does: it keeps the last `room` images under their names, and refuses the name of another."""

    def __init__(self, server: StandIn, room: int = 4) -> None:
        self.kept: dict[str, str] = {}
        self.room, self.urls, self.names = room, 0, 0
        server.models = [{"id": "policy", "object": "model", "created": 0, "owned_by": "vllm"}]
        server.reply = self

    def __call__(self, body: Body) -> Answer:
        shown = []
        for part in body["messages"][0]["content"]:
            if part["type"] == "image_url":
                name = part.get("uuid")
                if part["image_url"] is not None:
                    self.urls += 1
                    self.kept[name] = part["image_url"]["url"]
                elif name in self.kept:
                    self.names += 1
                else:
                    return 400, "application/json", '{"message": "Cache miss for image at index 0"}'
                shown.append(self.kept[name])
        while len(self.kept) > self.room:
            del self.kept[next(iter(self.kept))]
        return completion(json.dumps(shown), read=len(shown) + 2)


def asked(server: StandIn, *problems: int, learn: bool = True) -> tuple[list[list[str]], bool]:
    """The data URLs that the server saw for each question about a problem's image, and whether it keeps images."""

    async def ask() -> tuple[list[list[str]], bool]:
        servers = Servers(config_of(server))
        images = {i: servers.image(photo(size=(32 + i, 32))) for i in problems}
        body = {"model": "policy", "messages": [user_turn([servers.image(photo(size=(16, 16)))], "?")]}
        if learn:
            await servers.learn_names(servers.each[0], body)
        answers = []
        for i in problems:
            answer = await servers.call({"messages": [user_turn([images[i]], "?")]}, str(i))
            assert isinstance(answer, client_module.Answer), answer
            answers.append(json.loads(answer.choices[0]["message"]["content"]))
            assert answers[-1] == [images[i].url.decode()]
        await servers.close()
        return answers, servers.each[0].images.on

    return asyncio.run(ask())


def test_a_server_that_keeps_images_gets_each_once(server: StandIn) -> None:
    keeper = Keeper(server)
    _, on = asked(server, 1, 1, 2, 1, 2, 2)
    assert on
    assert (keeper.urls, keeper.names) == (2 + 1, 4 + 1)  # with the image of the first question


def test_an_image_that_a_server_dropped_is_sent_again(server: StandIn) -> None:
    keeper = Keeper(server, room=2)
    _, on = asked(server, 1, 1, 2, 3, 1, 1, 1)
    assert on, "one miss is no reason to stop"
    assert keeper.urls == 1 + 4


def test_a_server_that_drops_most_images_gets_them_whole(server: StandIn) -> None:
    keeper = Keeper(server, room=1)
    _, on = asked(server, *[i for _ in range(MISSES + 2) for i in (1, 2)])
    assert not on
    assert keeper.names <= 2


def test_a_refusal_for_another_reason_is_no_miss(server: StandIn) -> None:
    """The request is refused with the image too."""
    keeper = Keeper(server)
    server.reply = lambda body: (
        (400, "application/json", "too long") if body["messages"][0]["content"][-1]["text"] == "long" else keeper(body)
    )

    async def ask() -> tuple[bool, int, int]:
        servers = Servers(config_of(server))
        shown = servers.image(photo())
        await servers.learn_names(servers.each[0], {"messages": [user_turn([shown], "?")]})
        for text in ["long", "?"] * (MISSES + 2):
            await servers.call({"messages": [user_turn([shown], text)]}, "p")
        await servers.close()
        images = servers.each[0].images
        return images.on, images.misses, images.hits

    assert asyncio.run(ask()) == (True, 0, 1)


def test_a_server_that_reads_nothing_where_it_has_the_name_alone_gets_images_whole(server: StandIn) -> None:
    """It does not know names, and would answer about no image."""
    server.models = [{"id": "policy", "object": "model", "created": 0, "owned_by": "vllm"}]

    def reply(body: Body) -> Answer:
        urls = [part["image_url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
        seen = [url["url"] for url in urls if url]
        return completion(json.dumps(seen), read=len(seen) + 2)

    server.reply = reply
    _, on = asked(server, 1, 1)
    assert not on
    assert "uuid" not in json.dumps(server.asked[2:])


def test_other_servers_are_sent_no_names(server: StandIn) -> None:
    """OpenAI's refuses fields that it does not know."""
    server.reply = lambda body: completion(json.dumps([body["messages"][0]["content"][0]["image_url"]["url"]]))
    asked(server, 1, 1)
    assert len(server.asked) == 2
    assert "uuid" not in json.dumps(server.asked)
