"""Validate a dataset row before it is written."""

from __future__ import annotations

import json

import pyarrow
from datasets import Features

from vlprm.data.dataset import FEATURES, row_evidence, row_paths
from vlprm.data.importing import DatasetRow, soft_value, step_texts
from vlprm.errors import RecordError
from vlprm.schema import ERROR_KINDS

_SCHEMA = Features(FEATURES).arrow_schema


def checked(row: DatasetRow) -> DatasetRow:
    """Return the row if it can be written and read back; otherwise it would break the whole file. Raises RecordError,
    or an error from pyarrow or the reader."""
    pyarrow.Table.from_pylist([row], schema=_SCHEMA)  # checks types and that text is valid UTF-8
    parents, steps = row["parents"], len(row["completions"])
    if any(len(row[column]) != steps for column in ("parents", "labels", "error_kinds")):
        raise RecordError("label_count")
    step_texts(row["completions"])
    if not all(-1 <= parent < n for n, parent in enumerate(parents)):  # otherwise a path could be a cycle
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
