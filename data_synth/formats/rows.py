"""What a dataset row has to be before it is written."""

from __future__ import annotations

import json

import pyarrow
from datasets import Features

from vlprm.data.dataset import FEATURES, row_evidence, row_paths
from vlprm.data.importing import DatasetRow, soft_value
from vlprm.errors import RecordError
from vlprm.schema import ERROR_KINDS

_SCHEMA = Features(FEATURES).arrow_schema


def checked(row: DatasetRow) -> DatasetRow:
    """The row, if a dataset can hold it and its reader understands it: one that it cannot would stop the whole file
    when it is written, or whoever reads it. Dropped, or another error, where it is not."""
    pyarrow.Table.from_pylist([row], schema=_SCHEMA)  # of the right types, in text that UTF-8 can write
    parents, steps = row["parents"], len(row["completions"])
    if any(len(row[column]) != steps for column in ("parents", "labels", "error_kinds")):
        raise RecordError("label_count")
    if not all(-1 <= parent < n for n, parent in enumerate(parents)):  # else a path may never end
        raise RecordError("parent_value")
    if not all(0 <= leaf["node"] < steps for leaf in row["leaves"]):
        raise RecordError("leaf_value")
    if not set(row["error_kinds"]) <= {None, *ERROR_KINDS}:
        raise RecordError("error_kind_value")
    for target in row["labels"]:
        soft_value(target)
    row_paths(row)
    if "root" in json.loads(row["meta"]):
        row_evidence(row)
    return row
