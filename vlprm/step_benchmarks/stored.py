"""Read a file of stored predictions, in our layout or the benchmark's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlprm.data.importing import Record, required_field
from vlprm.errors import RecordError, UserError
from vlprm.step_benchmarks.labelled import LabelledSolution, StepBenchmark, json_lines
from vlprm.step_benchmarks.predictions import Prediction, from_record


def read_predictions(
    path: Path, benchmark: StepBenchmark, solutions: Sequence[LabelledSolution]
) -> dict[str, Prediction]:
    """One prediction per solution by key; solutions missing from the file have no result. UserError names a line that
    is malformed, belongs to no solution of the benchmark, or repeats one."""
    known = {solution.key: solution for solution in solutions}
    predictions: dict[str, Prediction] = {}
    for number, record in json_lines(path):
        try:
            key, prediction = _read(record, benchmark, known)
        except RecordError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        if key in predictions:
            raise UserError(f"{path}, line {number}: {key!r} occurs twice; remove one of the two lines")
        predictions[key] = prediction
    return {key: predictions.get(key, Prediction(no_result="missing")) for key in known}


def _read(record: Record, benchmark: StepBenchmark, known: dict[str, LabelledSolution]) -> tuple[str, Prediction]:
    read = None if "key" in record else benchmark.parse_prediction
    key = required_field(record, benchmark.key_field if read else "key", str)
    if key not in known:
        raise RecordError(
            "unknown_key", f"the data has no solution {key!r}; give the full folder, or other predictions"
        )
    return key, read(record, known[key]) if read else from_record(record, len(known[key].steps))
