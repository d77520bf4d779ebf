"""TRL's stepwise format, extended with images. These files can be used for training directly.

    prompt        the question: a text, or messages with a single user turn
    completions   text of each step of one solution
    labels        per step: true, false, a number in [0, 1], or null (no loss)
    images        optional, List(Image()); or `image`, a single one
    id, answer    optional

Files are parquet as written by `datasets`, or JSON Lines with paths of images inside the dataset's folder, or data
URLs. An `<image>` in a text, or a part {"type": "image"} in a message, marks an image; the model sees all images before
the question, wherever the marks are. A system turn is dropped, because it instructs the policy. `vlprm.data.messages`
reads the messages.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlprm.data.dataset import COLUMNS, iterate_rows, open_parquet, table_rows
from vlprm.data.importing import (
    DatasetRow,
    ImageFolder,
    Record,
    chain,
    label_without_counts,
    made_row,
    required_field,
    soft_value,
    step_texts,
)
from vlprm.data.messages import ordered_images, own_images, question_of
from vlprm.errors import RecordError, UserError

log = logging.getLogger(__name__)

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
    shown = images.load(ordered_images(marks, own_images(record)))
    return made_row("trl", question, shown, record.get("answer"), nodes)


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
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is not JSON; correct it") from error
