"""Questions, images and texts in prompts and completions: a text, or messages as TRL, transformers, OpenAI or Anthropic
write them.

An `<image>` in a text marks an image, like a part of type `image`. Parts and fields that a reward model cannot read (a
video, a tool call) are refused, because without them the question is another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vlprm.data.importing import MARK, Record, as_list
from vlprm.errors import RecordError

TEXT_PARTS = ("text", "input_text", "output_text")
IMAGE_PARTS = ("image", "image_url", "input_image")
IMAGE_FIELDS = ("image", "image_url", "url", "path", "base64", "source")
OTHER_MEDIA = ("video", "videos", "audio", "audios")
BESIDE_CONTENT = (*OTHER_MEDIA, "image", "images", "tool_calls", "function_call")  # fields of a turn
INSTRUCTING = ("system", "developer")  # their turns instruct the policy
_OTHER_MARK = re.compile("<(?:video|audio)>")


def question_of(prompt: Any) -> tuple[str, list[Any]]:
    """The question in a prompt, and one item per image mark: the mark's image, or None. RecordError if the prompt is
    neither a text nor messages with a single user turn, or holds anything but text and images."""
    if isinstance(prompt, str):
        return _question([{"type": "text", "text": prompt}])
    turns = _objects(prompt, "prompt")
    content = [_content(turn) for turn in turns]
    for turn, parts in zip(turns, content, strict=True):
        if turn.get("role") in INSTRUCTING:
            _texts(parts)  # refuses an image
    asked = [(turn, parts) for turn, parts in zip(turns, content, strict=True) if turn.get("role") not in INSTRUCTING]
    if [turn.get("role") for turn, _ in asked] != ["user"]:
        raise RecordError("prompt_turns", "its prompt is not a single user turn; give only the question")
    return _question(asked[0][1])


def completion_text(completion: Any) -> str:
    """The text of a completion: a text, or messages with a single turn. RecordError for anything else."""
    if isinstance(completion, str):
        return completion
    turns = _objects(completion, "completion")
    if len(turns) != 1:
        raise RecordError("completion_turns", "its completion is not a single turn; a reward model reads one turn")
    return "".join(_texts(_content(turns[0])))


def own_images(columns: Mapping[str, Any]) -> list[Any]:
    """The images in a row's columns `images` or `image`. RecordError if both have some and they differ, or if there is
    a video or audio."""
    for name in OTHER_MEDIA:
        if as_list(columns.get(name)):
            raise RecordError("other_media", f"it has {name}, and a reward model reads images alone; remove the row")
    several, single = as_list(columns.get("images")), as_list(columns.get("image"))
    if several and single and several != single:
        raise RecordError("image_columns", "its images and image differ; keep one of these columns")
    return several or single


def ordered_images(marks: Sequence[Any], own: Sequence[Any]) -> list[Any]:
    """The images of a prompt in the order of its marks; the row's images (`own`) fill the marks without one.
    RecordError if the numbers differ."""
    empty = sum(mark is None for mark in marks)
    copied = not empty and len(own) in (0, len(marks))  # TRL's trainers copy a row's images into its messages
    if marks and not copied and empty != len(own):
        cause = "image_count" if own else "image_missing"
        raise RecordError(cause, f"it has {len(own)} images for {empty} marks in its prompt; give one image per mark")
    remaining = iter(own)
    return [next(remaining) if mark is None else mark for mark in marks] if marks else list(own)


def _question(parts: Sequence[Record]) -> tuple[str, list[Any]]:
    marks: list[Any] = []
    text = ""
    for part in parts:
        if part.get("type") in IMAGE_PARTS:
            marks.append(_image(part))
        else:
            said = _text(part)
            marks += [None] * said.count(MARK)
            text += said
    if other := _OTHER_MARK.search(text):
        raise RecordError(
            "other_media", f"its prompt has the mark {other[0]}, and a reward model reads images alone; remove it"
        )
    return (text.replace(MARK, "").strip() if MARK in text else text), marks


def _content(turn: Record) -> Sequence[Record]:
    """The parts of a turn's content."""
    if beside := next((name for name in BESIDE_CONTENT if turn.get(name)), None):
        raise RecordError(
            "turn_field", f"one of its turns has {beside}; a reward model reads the content of turns, so put it there"
        )
    content = turn.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else _objects(content, "content")


def _texts(parts: Sequence[Record]) -> list[str]:
    return [_text(part) for part in parts]


def _text(part: Record) -> str:
    kind, text = part.get("type"), part.get("text")
    if kind not in TEXT_PARTS or _image_fields(part):
        raise RecordError(
            "message_part",
            f"one of its messages has a part of type {kind!r:.30} that cannot be read there; give text, and images in"
            " the user turn",
        )
    if not isinstance(text, str | None):
        raise RecordError("text_type", f"the text of one of its parts is {text!r:.30}; make it a text")
    return text or ""


def _image(part: Record) -> Any:
    """The image of a part, as `vlprm.data.importing.ImageFolder` loads it; None for a mark without one."""
    given = _image_fields(part)
    if len(given) > 1 or part.get("text"):
        said = " and ".join([*given, *(["text"] if part.get("text") else [])])
        raise RecordError("message_part", f"one of its image parts has {said}; give one of them per part")
    ((name, value),) = given.items() or [("", None)]
    if name == "source":
        return _anthropic(value)
    if name == "base64":
        return f"data:;base64,{value}"
    return value


def _image_fields(part: Record) -> dict[str, Any]:
    return {name: part[name] for name in IMAGE_FIELDS if part.get(name) is not None}


def _anthropic(source: Any) -> Any:
    """The image of a source block of Anthropic's messages."""
    kind = source.get("type") if isinstance(source, dict) else None
    if kind == "base64":
        return f"data:{source.get('media_type')};base64,{source.get('data')}"
    if kind == "url":
        return source.get("url")
    raise RecordError("message_part", "one of its image parts has a source that is neither base64 nor url; use base64")


def _objects(value: Any, name: str) -> list[Record]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RecordError(f"{name}_type", f"its {name} is neither a text nor a list of objects; make it one of these")
    return value
