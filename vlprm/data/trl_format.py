"""TRL's stepwise format, extended with images. These files can be used for training directly.

    prompt        the question: a text, or messages with a single user turn
    completions   text of each step of one solution
    labels        per step: true, false, a number in [0, 1], or null (no loss)
    images        optional, List(Image()); or `image`, a single one
    id, answer    optional

Files are parquet as written by `datasets`, or JSON Lines with paths of images inside the dataset's folder. An `<image>`
in a text, or a part {"type": "image"} in a message, marks an image; the model sees all images before the question,
wherever the marks are. A system turn is dropped, because it instructs the policy.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlprm.data.dataset import COLUMNS, iterate_rows, open_parquet, table_rows
from vlprm.data.importing import (
    DatasetRow,
    ImageFolder,
    Record,
    as_list,
    chain,
    label_without_counts,
    made_row,
    required_field,
    soft_value,
    step_texts,
)
from vlprm.errors import RecordError, UserError

log = logging.getLogger(__name__)

MARK = "<image>"
STEPWISE = {"prompt", "completions", "labels"}
OF_TREES = {
    "parents",
    "leaves",
    "evidence",
}  # one of these columns marks our format


def training_rows(path: Path) -> Iterator[DatasetRow]:
    """Yield the rows of a training dataset in our format (`vlprm.data.dataset`) or TRL's, detected by its columns; a
    few are in memory at a time. UserError names the file, the row, its id if it has one, and the fix."""
    if path.suffix != ".jsonl" and not _is_stepwise(path):
        yield from iterate_rows(path)
        return
    log.info("%s is read as TRL's stepwise format", path)
    images, number = ImageFolder(path.parent), 0
    for number, record in enumerate(_records(path), 1):
        try:
            yield _training_row(record, images)
        except RecordError as error:
            named = f" (id {record['id']})" if isinstance(record, dict) and record.get("id") is not None else ""
            raise UserError(f"{path}, row {number}{named}: {error}") from error
    if not number:
        raise UserError(f"{path} has no rows; write one solution per row")


def stepwise_row(record: Record, images: ImageFolder) -> DatasetRow:
    """Convert a record to a row of our format, whose tree is a chain; whether its answer is right stays unknown.
    RecordError if it is malformed."""
    steps, labels = step_texts(record.get("completions")), required_field(record, "labels", list)
    nodes = chain(
        steps, [label_without_counts("trl", soft_value(float(v) if isinstance(v, bool) else v)) for v in labels]
    )
    question, marks = question_of(required_field(record, "prompt", object))
    own = as_list(record.get("images")) or as_list(record.get("image"))
    return made_row("trl", question, images.load(ordered_images(marks, own)), record.get("answer"), nodes)


def question_of(prompt: Any) -> tuple[str, list[Any]]:
    """The question in a prompt, and one item per image mark: the mark's image, or None. RecordError if the prompt is
    neither a text nor messages with a single user turn."""
    if isinstance(prompt, str):
        return (prompt.replace(MARK, "").strip() if MARK in prompt else prompt), [None] * prompt.count(MARK)
    turns = [turn for turn in _objects(prompt, "prompt") if turn.get("role") != "system"]
    if [turn.get("role") for turn in turns] != ["user"]:
        raise RecordError("prompt_turns", "its prompt is not a single user turn; give only the question")
    if isinstance(content := turns[0].get("content"), str):
        return question_of(content)
    parts = _objects(content, "prompt")
    return text_of(parts), [part.get("image") for part in parts if part.get("type") == "image"]


def text_of(content: Any) -> str:
    """The text of a message's content, a string or a list of parts. RecordError for anything else."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in _objects(content, "content") if part.get("type") == "text")


def ordered_images(marks: Sequence[Any], own: Sequence[Any]) -> list[Any]:
    """The images of a prompt in the order of its marks; the row's images (`own`) fill the marks without one.
    RecordError if the numbers differ."""
    empty = sum(mark is None for mark in marks)
    if marks and not empty:  # TRL's trainers copy a row's images into its messages and pass both
        return list(marks)
    if marks and empty != len(own):
        cause = "image_count" if own else "image_missing"
        raise RecordError(cause, f"it has {len(own)} images for {empty} marks in its prompt; give one image per mark")
    remaining = iter(own)
    return [next(remaining) if mark is None else mark for mark in marks] if marks else list(own)


def _training_row(record: Any, images: ImageFolder) -> DatasetRow:
    if not isinstance(record, dict):
        raise RecordError(
            "not_an_object", "it is not a JSON object; write an object with prompt, completions and labels"
        )
    if foreign := OF_TREES & set(record):
        raise RecordError(
            "a_tree", f"it has {min(foreign)}, a column of trees; write trees with data_synth.convert --to vlprm"
        )
    if missing := STEPWISE - set(record):
        raise RecordError(f"no_{min(missing)}", f"it has no {min(missing)}; data_synth.convert reads other formats")
    row = stepwise_row(record, images)
    # Errors name the record's own id; train.prm still groups rows by question and images.
    return row if record.get("id") is None else {**row, "id": str(record["id"])}


def _is_stepwise(path: Path) -> bool:
    with open_parquet(path) as file:
        columns = set(file.schema_arrow.names)
    if not OF_TREES & columns and (missing := STEPWISE - columns):
        raise UserError(
            f"{path} is in neither our format nor TRL's: it has the columns {', '.join(sorted(columns))} and lacks"
            f" {', '.join(sorted(missing))}; rename its columns, or convert it with data_synth.convert"
        )
    return not OF_TREES & columns and not set(COLUMNS) <= columns


def _records(path: Path) -> Iterator[Any]:
    if path.suffix != ".jsonl":
        with open_parquet(path) as file:
            yield from table_rows(file)
        return
    if not path.is_file():
        raise UserError(f"no dataset {path}; give a file with TRL's prompt, completions and labels")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is not JSON; correct it") from error


def _objects(value: Any, name: str) -> list[Record]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RecordError(f"{name}_type", f"its {name} is neither a text nor a list of objects; make it one of these")
    return value
