"""Prompts and rows in other dialects are read with their images, or refused with the row and the cause."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlprm.data.importing import DatasetRow
from vlprm.data.messages import completion_text
from vlprm.data.trl_format import TrainingRows
from vlprm.images import png

FIXTURES = Path(__file__).parents[1] / "fixtures"
DATA = png(Image.new("RGB", (40, 30), "red"))
BASE64 = base64.b64encode(DATA).decode()
DATA_URL = f"data:image/png;base64,{BASE64}"


def cases(name: str) -> list[dict[str, Any]]:
    text = (FIXTURES / name).read_text().replace("DATA_URL", DATA_URL).replace("BASE64", BASE64)
    return [json.loads(line) for line in text.splitlines()]


def read(folder: Path, **changes: Any) -> dict[str, Any]:
    """The row that a record with these fields gives."""
    (folder / "a.png").write_bytes(DATA)
    record = {"prompt": "How many?", "completions": ["a", "b"], "labels": [True, False], **changes}
    (folder / "d.jsonl").write_text(json.dumps(record) + "\n")
    (row,) = TrainingRows(folder / "d.jsonl")
    return row


def test_parts_of_every_dialect_are_read_or_refused(tmp_path: Path) -> None:
    for case in cases("message_parts.jsonl"):
        turn = {"role": "user", "content": [case["part"], {"type": "text", "text": "How many?"}]}
        if error := case.get("error"):
            with pytest.raises(ValueError, match=rf"d\.jsonl, row 1: [^\n]*{error}"):
                read(tmp_path, prompt=[turn], images=case.get("own"))
            continue
        row = read(tmp_path, prompt=[turn], images=case.get("own"))
        assert [image["bytes"] for image in row["images"]] == [DATA] * case["images"], case
        assert row["prompt"] == case.get("prompt", "How many?"), case


USER = {"role": "user", "content": "How many?"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a turn with images beside its text": ({"prompt": [{**USER, "images": ["a.png"]}]}, "turns has images"),
    "a turn with tool calls": ({"prompt": [{**USER, "tool_calls": [{"id": 1}]}]}, "turns has tool_calls"),
    "a system turn with an image": (
        {"prompt": [{"role": "system", "content": [{"type": "image", "image": "a.png"}]}, USER]},
        "part of type 'image' that cannot be read there; give text, and images in the user turn",
    ),
    "a column of videos": ({"videos": ["a.mp4"]}, "it has videos, and a reward model reads images alone"),
    "a column of audio": ({"audio": "a.wav"}, "it has audio, and a reward model reads images alone"),
    "a mark of a video": ({"prompt": "<video>\nHow many?"}, "its prompt has the mark <video>"),
    "two columns that differ": ({"images": ["a.png"], "image": "b.png"}, "its images and image differ"),
    "more images than marks": ({"prompt": "<image> <image>?", "images": ["a.png"]}, "1 images for 2 marks"),
    "a URL": ({"image": "https://x.org/y.png"}, "'https://x.org/y.png' is on the web; download it"),
    "a URL of a file": ({"image": "file:///a.png"}, "is on the web"),
    "a data URL that is not base64": ({"image": "data:image/png,abc"}, "'data:image/png,abc' is not valid base64"),
    "a data URL with other characters": ({"image": "data:image/png;base64,!!é!"}, "is not valid base64"),
    "a data URL of no image": ({"image": "data:text/plain;base64,YWJj"}, "cannot be read"),
    "half a character in the question": ({"prompt": "How \ud83d?"}, r"half a character, '\\ud83d', after 'How '"),
    "half a character in a step": ({"completions": ["a \ude00", "b"]}, r"half a character, '\\ude00', after 'a '"),
    "half a character in the answer": ({"answer": "\ud83d"}, "half a character"),
    "a step of spaces": ({"completions": ["a", " "]}, "one of its steps is empty"),
    "a step of line breaks": ({"completions": ["\n\n", "b"]}, "one of its steps is empty"),
    "a step of wide spaces": ({"completions": ["a", "\u3000\xa0"]}, "one of its steps is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_row_that_cannot_be_seen_whole_is_refused(case: str, tmp_path: Path) -> None:
    changes, said = REFUSED[case]
    with pytest.raises(ValueError, match=rf"d\.jsonl, row 1: [^\n]*{said}") as caught:
        read(tmp_path, **changes)
    assert len(str(caught.value)) < len(str(tmp_path)) + 200


READ: dict[str, tuple[dict[str, Any], DatasetRow]] = {
    "a data URL": ({"image": DATA_URL}, {"prompt": "How many?"}),
    "a data URL in a list": ({"images": [DATA_URL.replace("image/png", "")]}, {"prompt": "How many?"}),
    "a data URL in an object": ({"images": [{"url": DATA_URL}]}, {"prompt": "How many?"}),
    "the same image in two columns": ({"images": ["a.png"], "image": "a.png"}, {"prompt": "How many?"}),
    "empty columns": ({"images": ["a.png"], "videos": [], "audio": None}, {"prompt": "How many?"}),
    "a turn that instructs": ({"prompt": [{"role": "developer", "content": "Be short."}, USER], "image": "a.png"},
                              {"prompt": "How many?"}),
    "control characters": ({"prompt": "How\x00\x0c many?", "completions": ["\x1b[1m3", "b\u2028c"], "image": "a.png"},
                           {"prompt": "How\x00\x0c many?", "completions": ["\x1b[1m3", "b\u2028c"]}),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_a_row_is_read_with_its_image(case: str, tmp_path: Path) -> None:
    changes, expected = READ[case]
    row = read(tmp_path, **changes)
    assert [image["bytes"] for image in row["images"]] == [DATA]
    assert {name: row[name] for name in expected} == expected


def test_blank_lines_of_a_file_are_skipped(tmp_path: Path) -> None:
    line = json.dumps({"prompt": "Q?", "completions": ["a"], "labels": [True]}).encode()
    (tmp_path / "d.jsonl").write_bytes(b"\n" + line + b"\n \r\n\n" + line + b"\n\n")
    assert len(list(TrainingRows(tmp_path / "d.jsonl"))) == 2
    (tmp_path / "d.jsonl").write_bytes(b"\n \n")
    with pytest.raises(ValueError, match="has no rows; write one solution per row"):
        list(TrainingRows(tmp_path / "d.jsonl"))
    (tmp_path / "d.jsonl").write_bytes(b"\n" + line + b"\n{\n")
    with pytest.raises(ValueError, match="line 3 is not JSON; correct it"):
        list(TrainingRows(tmp_path / "d.jsonl"))


@pytest.mark.parametrize(
    "completion",
    [
        None,
        [],
        [{"role": "assistant", "content": "a"}] * 2,
        [{"role": "assistant", "content": "a", "tool_calls": [{"id": 1}]}],
        [{"role": "assistant", "content": "a", "audio": {"id": "x"}}],
        [{"role": "assistant", "content": None}],
        [{"role": "assistant", "content": [{"type": "image", "image": b""}]}],
        [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "tool_use", "name": "zoom"}]}],
    ],
)
def test_a_completion_that_is_more_than_a_text_is_refused(completion: Any) -> None:
    with pytest.raises(ValueError, match=r"its completion|turns has|part of type|content"):
        completion_text(completion)


def test_the_text_of_a_completion_is_joined() -> None:
    parts = [{"type": "output_text", "text": "a\n\n", "annotations": []}, {"type": "text", "text": "b"}]
    for content in ("a\n\nb", parts):
        assert completion_text([{"role": "assistant", "content": content, "refusal": None}]) == "a\n\nb"
