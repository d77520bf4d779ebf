"""Outputs of models on a benchmark: files in the layouts of the public repositories and in ours.

- JSON: an object of records by id (MathVista), of texts by id (MMMU, "eval only"), of lists of records (MMMU, by
  subject), or a list of records;
- JSON lines: records (MathVision, MMMU-Pro, PuzzleVQA), {"id", "response"}, or the records of eval.run, where the first
  candidate of each pool counts.

If the last step of a text is tagged as the answer, only that step is read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlprm.answers import answer_text
from vlprm.benchmarks.benchmark import Benchmark, Output, decoded
from vlprm.errors import UserError
from vlprm.runs.pools import POOL
from vlprm.schema import Solution, from_json
from vlprm.steps import join_steps, split_steps

TEXT_FIELDS = ("response", "raw_output")


@dataclass(frozen=True)
class Outputs:
    """Outputs by id, in file order. `malformed`: number of records without a valid text, which count as empty; `torn`:
    the last line was cut short and is left out."""

    by_id: dict[str, Output]
    malformed: int
    torn: bool


def read_outputs(path: Path, benchmark: Benchmark) -> Outputs:
    """Read a file of outputs. UserError if it cannot be read, or if a record has no id or repeats one."""
    read, torn = _records(path)
    records = [_of_run(record) if "candidates" in record else record for record in read if not _is_search(record)]
    outputs: dict[str, Output] = {}
    texts = [_text(record) for record in records]
    for number, (record, text) in enumerate(zip(records, texts, strict=True), 1):
        item_id = benchmark.key(record)
        if item_id is None:
            raise UserError(
                f"{path}: record {number} has no id; give each record one, as in {benchmark.name}'s own files"
            )
        if item_id in outputs:
            repeated = sum(count > 1 for count in Counter(map(benchmark.key, records)).values())
            raise UserError(f"{path}: {repeated} ids have several outputs, such as {item_id!r}; keep one of each")
        outputs[item_id] = Output(item_id, final_text(text or ""), record)
    if not outputs:
        raise UserError(f"{path} has no outputs; check the file")
    malformed = [text is None for text in texts]
    if all(malformed):
        raise UserError(f"{path}: no record has a text in {', '.join(TEXT_FIELDS)}; rename the field")
    return Outputs(outputs, sum(malformed), torn)


def final_text(text: str) -> str:
    """The content of the answer step if the text has one, else the whole text."""
    return answer_text(split_steps(text))


def _text(record: Mapping[str, Any]) -> str | None:
    """The model's output; None if the record has none. A number is an unquoted text."""
    return next((_plain(record[name]) for name in TEXT_FIELDS if name in record), None)


def _is_search(record: Mapping[str, Any]) -> bool:
    """Whether a record of eval.run belongs to a search method and not to the pool."""
    return "candidates" in record and record.get("method") != POOL


def _of_run(record: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a record of eval.run to an output with the first candidate's text."""
    first = [from_json(Solution, candidate["solution"]) for candidate in record["candidates"][:1]]
    return {"id": record["problem"], "response": join_steps(first[0].steps) if first else None}


def _plain(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _records(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The records of a file, and whether its last line was cut short."""
    text = decoded(path)
    try:
        whole = json.loads(text)
    except ValueError:
        return _line_records(text, path)
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply; give a file of outputs") from error
    if isinstance(whole, dict) and {"id", "pid", "key", *TEXT_FIELDS} & whole.keys():
        return [whole], False  # JSON Lines with a single line
    return list(_whole_records(whole, path)), False


def _whole_records(whole: Any, path: Path) -> Iterator[dict[str, Any]]:
    pairs = whole.items() if isinstance(whole, dict) else [(None, whole)]
    for key, value in pairs:
        for record in value if isinstance(value, list) else [value]:
            if isinstance(record, dict):
                yield record if isinstance(value, list) else {**record, "id": key}
            elif key is not None and not isinstance(value, list):
                yield {"id": key, "response": record}
            else:
                raise UserError(f"{path}: {str(record)[:60]!r} is not a record; write objects with an id")


def _line_records(text: str, path: Path) -> tuple[list[dict[str, Any]], bool]:
    records: list[dict[str, Any]] = []
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if records and number == lines[-1][0] and not text.endswith("\n"):
                return records, True
            raise UserError(
                f"{path}, line {number} is not JSON ({error}); remove it, or create the file again"
            ) from error
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number} is not an object; write objects with an id")
        records.append(record)
    return records, False
