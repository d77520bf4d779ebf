"""Convert step labels from other groups into rows of our dataset; `data_synth.formats` builds its readers from these
parts."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vlprm.data.dataset import tree_row
from vlprm.errors import RecordError, UserError
from vlprm.images import LeadsOut, open_image, read_inside
from vlprm.schema import HALF_CHARACTER, ErrorKind, Problem, StepLabel, StepTree, TreeNode
from vlprm.steps import parse_step

Record = dict[str, Any]
DatasetRow = dict[str, Any]
Leaf = tuple[str | None, bool | None]  # a solution's answer, and whether it is right
T = TypeVar("T")

MARK = "<image>"
_NUMBERED_MARK = re.compile(r"<image\s*(\d+)>")
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/?/", re.IGNORECASE)


class ImageFolder:
    """Loads images that a source names, from one folder only."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder and folder.resolve()

    def load(self, value: Any) -> tuple[bytes, ...]:
        """The encoded files of an image field: null, a path, a data URL, bytes, a struct of these, or a list of these.
        RecordError if one is missing, unreadable, on the web or outside the folder."""
        return tuple(self._one(item) for item in as_list(value))

    def _one(self, value: Any) -> bytes:
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path") or value.get("url")
        data = self._named(value) if isinstance(value, str) else value
        if not isinstance(data, bytes):
            raise RecordError("image_missing", "one of its images is null; give the image, or remove it from the list")
        try:
            open_image(data)
        except ValueError as error:
            raise RecordError("image_unreadable", str(error)) from error
        return data

    def _named(self, name: str) -> bytes:
        if name.startswith("data:"):
            return from_data_url(name)
        if _URL.match(name):
            raise RecordError("image_url", f"its image {name!r:.60} is on the web; download it, and give its path")
        return self._file(name)

    def _file(self, name: str) -> bytes:
        if self._folder is None:
            raise RecordError("no_image_folder")
        try:
            return read_inside(self._folder, name)
        except LeadsOut as error:
            raise RecordError("image_outside_folder", f"its image {error}; copy it into that folder") from error
        except OSError as error:
            raise RecordError(
                "image_missing", f"there is no image {name!r:.80} in the folder {self._folder.name}; copy it there"
            ) from error


def from_data_url(url: str) -> bytes:
    """The bytes in a data URL. RecordError if they are not in base64."""
    _, found, data = url.partition(";base64,")
    try:
        return base64.b64decode("".join(data.split()) if found else "-", validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: a character outside ASCII
        raise RecordError("image_unreadable", f"its image {url!r:.40} is not valid base64; encode it again") from error


def as_list(value: Any) -> list[Any]:
    """The items of an image field, which may be a list, a single item or null."""
    return value if isinstance(value, list) else [] if value is None else [value]


def refuse_repeated(keys: Iterable[str], what: str, place: str) -> None:
    """UserError if a benchmark has none of `what`, or two with the same key."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise UserError(f"{place} has two {what} {key!r}; copy the benchmark again")
        seen.add(key)
    if not seen:
        raise UserError(f"{place} has no {what}; copy the benchmark again")


def required_field(record: Record, name: str, kind: type[T]) -> T:
    """A record's field. RecordError if it is missing or of another type."""
    value = record.get(name)
    if value is None:
        raise RecordError(f"no_{name}", f"it has no {name}; add this field of the format")
    if not isinstance(value, kind):
        raise RecordError(f"{name}_type", f"its {name} is a {type(value).__name__}; make it a {kind.__name__}")
    return value


def step_texts(values: Any) -> list[str]:
    """The texts of the steps. RecordError if there are none or one is empty or white space, which no model scores."""
    if not isinstance(values, list) or not values:
        raise RecordError("no_steps", "it has no list of steps; give one text per step, or remove the record")
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise RecordError("empty_step", "one of its steps is empty or not a text; remove it and its label")
    return values


def soft_value(value: Any) -> float | None:
    """A number in [0, 1], or null. RecordError for any other value."""
    if value is not None and not (type(value) in (int, float) and 0 <= value <= 1):  # excludes booleans
        raise RecordError(
            "label_value", f"its label {value!r:.40} is not a number in [0, 1]; scale it, or make it null"
        )
    return None if value is None else float(value)


def label_without_counts(rule: str, target: float | None, error_kind: ErrorKind | None = None) -> StepLabel:
    """A label with a target but without rollout counts."""
    return StepLabel(target=target, error_kind=error_kind, rule=rule)


def chain(steps: Sequence[str], labels: Sequence[StepLabel]) -> list[TreeNode]:
    """One solution as nodes. RecordError if there is not one label per step."""
    if len(steps) != len(labels):
        raise RecordError(
            "label_count",
            f"it has {len(labels)} labels for {len(steps)} steps; give one label per step (null: no loss)",
        )
    return [TreeNode(parse_step(text), n - 1, label) for n, (text, label) in enumerate(zip(steps, labels, strict=True))]


def refuse_blank_question(question: str) -> None:
    """RecordError if the question is empty: a reward model judges steps by their question."""
    if not question.strip():
        raise RecordError("no_question", "its question is empty; give the question that its steps answer")


def refuse_half_characters(*texts: str | None) -> None:
    """RecordError if a text has half of a surrogate pair, which no tokenizer and no file takes."""
    for text in texts:
        if found := HALF_CHARACTER.search(text or ""):
            said = f"{found[0]!r}, after {found.string[max(0, found.start() - 20) : found.start()]!r}"
            raise RecordError("half_character", f"it has half a character, {said}; remove it, or write both halves")


def without_marks(question: str, images: int) -> str:
    """The question without image marks; a model sees all images before it. RecordError if the marks do not fit the
    number of images."""
    marks = max([question.count(MARK), *(int(number) for number in _NUMBERED_MARK.findall(question))])
    if (MARK in question and marks != images) or marks > images:
        cause = "image_count" if images else "image_missing"
        raise RecordError(cause, f"it has {images} images for {marks} marks in its question; give one image per mark")
    return _NUMBERED_MARK.sub("", question.replace(MARK, "")).strip() if marks else question


def made_row(
    name: str,
    question: str,
    images: tuple[bytes, ...],
    answer: Any,
    nodes: Sequence[TreeNode],
    known: dict[int, Leaf] | None = None,
    **meta: Any,
) -> DatasetRow:
    """A row of the format `name`. Each node without children ends a solution; `known` maps some of these nodes to their
    answers.

    The id is a hash of question and images, so all solutions of a problem share it across files.
    """
    if not nodes:
        raise RecordError("no_steps")
    refuse_blank_question(question)
    gold = None if answer is None else str(answer)
    refuse_half_characters(question, gold, *(node.step.text for node in nodes))
    parents = {node.parent for node in nodes}
    leaves = [(n, *(known or {}).get(n, (None, None))) for n in range(len(nodes)) if n not in parents]
    digest = hashlib.sha256(question.encode() + b"".join(hashlib.sha256(data).digest() for data in images))
    problem = Problem(digest.hexdigest()[:16], name, question, images, gold, "word")
    tree = StepTree(problem.id, tuple(nodes), tuple((node, said) for node, said, _ in leaves))
    return tree_row(problem, tree, [right for _, _, right in leaves], {"rule": name, **meta})
