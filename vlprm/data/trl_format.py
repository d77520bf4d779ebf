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

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import List, Value

from vlprm.data.dataset import COLUMNS, check_columns, open_parquet
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
from vlprm.data.row_file import LineFile, RowFile, TableFile
from vlprm.errors import RecordError, UserError

log = logging.getLogger(__name__)

# Messages with images, as TRL's trainers read a prompt or a completion.
TURNS = List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})
STEPWISE = {"prompt", "completions", "labels"}
OF_TREES = {"parents", "leaves", "evidence"}  # one of these columns marks our format


class TrainingRows:
    """The rows of a training dataset in our format (`vlprm.data.dataset`) or TRL's, detected by its columns, and read
    by number. A few row groups are in memory. UserError names the file, the row, its id if it has one, and the fix.

    `groups` lists the number of rows and of bytes of each row group, which is read as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stepwise = path.suffix == ".jsonl" or _is_stepwise(path)
        self._file: RowFile = LineFile(path) if path.suffix == ".jsonl" else TableFile(path)
        self._images = ImageFolder(path.parent)
        self.groups = self._file.groups
        self._len = sum(rows for rows, _ in self.groups)
        if self._stepwise:
            log.info("%s is read as TRL's stepwise format", path)
        else:
            check_columns(path, self._file.columns)
        if not self._len:
            raise UserError(f"{path} has no rows; write one solution per row")

    def __len__(self) -> int:
        return self._len

    def problems(self, group: int) -> list[tuple[str, tuple[bytes, ...]]]:
        """The question and the images of each row of a group."""
        if isinstance(self._file, TableFile) and not self._stepwise:
            rows = self._file.part(group, ("prompt", "images"))
        else:
            first = sum(count for count, _ in self.groups[:group])
            rows = [self[first + i] for i in range(self.groups[group][0])]
        return [(row["prompt"], tuple((image and image["bytes"]) or b"" for image in row["images"])) for row in rows]

    def __iter__(self) -> Iterator[DatasetRow]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> DatasetRow:
        record = self._file.row(number)
        if not self._stepwise:
            return record  # type: ignore[no-any-return]
        try:
            return _training_row(record, self._images)
        except RecordError as error:
            named = f" (id {record['id']})" if isinstance(record, dict) and record.get("id") is not None else ""
            raise UserError(f"{self.path}, row {number + 1}{named}: {error}") from error


def stepwise_row(record: Record, images: ImageFolder) -> DatasetRow:
    """Convert a record to a row of our format, whose tree is a chain; whether its answer is right stays unknown.
    RecordError if it is malformed, or a tree."""
    if foreign := OF_TREES & set(record):
        raise RecordError(
            "a_tree", f"it has {min(foreign)}, a column of trees; write trees with data_synth.convert --to vlprm"
        )
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
