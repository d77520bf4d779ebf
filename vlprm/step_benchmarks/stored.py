"""A file of stored predictions, in our layout or in that of the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlprm.data.importing import Record, required_field
from vlprm.errors import RecordError
from vlprm.step_benchmarks.labelled import LabelledSolution, StepBenchmark, json_lines
from vlprm.step_benchmarks.predictions import Prediction, from_record


def read_predictions(
    path: Path, benchmark: StepBenchmark, solutions: Sequence[LabelledSolution]
) -> dict[str, Prediction]:
    """A prediction of every solution by its key; one that the file does not have has no result. ValueError names a line
    that is none, that is of no solution of the benchmark, or whose solution was there before."""
    known = {solution.key: solution for solution in solutions}
    predictions: dict[str, Prediction] = {}
    for number, record in json_lines(path):
        try:
            key, prediction = _read(record, benchmark, known)
        except RecordError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if key in predictions:
            raise ValueError(f"{path}, line {number}: {key!r} is there already; leave one of the two lines out")
        predictions[key] = prediction
    return {key: predictions.get(key, Prediction(no_result="missing")) for key in known}


def _read(record: Record, benchmark: StepBenchmark, known: dict[str, LabelledSolution]) -> tuple[str, Prediction]:
    read = None if "key" in record else benchmark.parse_prediction
    key = required_field(record, benchmark.key_field if read else "key", str)
    if key not in known:
        raise RecordError(
            "unknown_key", f"the data has no solution {key!r}; give the whole folder, or other predictions"
        )
    return key, read(record, known[key]) if read else from_record(record, len(known[key].steps))
