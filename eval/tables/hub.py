"""Measured table rows as Hub metadata: the `model-index` of a model card, and a file of `.eval_results/`.

    python -m eval.table --runs '[runs/eval/builtin]' --format model-index > model_index.yaml

Both are written with huggingface_hub. Quoted rows and the oracle are left out. Values are in percent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from eval.runs.results import ORACLE
from eval.tables.rows import Sample, TableRow
from vlprm.errors import UserError
from vlprm.metrics import percent

TASK = "image-text-to-text"


def as_model_index(rows: Sequence[TableRow]) -> str:
    """YAML header of a model card. UserError if the rows have several models, or none is measured."""
    own = list(_measured(rows))
    models = list(dict.fromkeys(row.model for row, _, _ in own))
    if len(models) != 1:
        raise UserError(
            f"a model card describes one model, but these rows have {len(models)}; pass the runs of one model"
        )
    return ModelCardData(model_name=models[0], eval_results=[_result(*cell) for cell in own]).to_yaml() + "\n"


def as_eval_results(rows: Sequence[TableRow]) -> str:
    """A file of `.eval_results/`, which dataset leaderboards read; only whole benchmarks. UserError if there is
    none."""
    entries = [
        EvalResultEntry(
            sample.hub.path, _config(sample) or "default", _value(row, name), notes=_notes(row, name, sample)
        )
        for row, name, sample in _measured(rows)
        if sample.hub is not None and sample.whole
    ]
    if not entries:
        raise UserError("no row covers all items of a benchmark on the Hub; run a whole benchmark, or use model-index")
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)


def _measured(rows: Sequence[TableRow]) -> Iterator[tuple[TableRow, str, Sample]]:
    for row in rows:
        if row.method != ORACLE:
            yield from ((row, name, sample) for name, sample in row.samples.items())


def _result(row: TableRow, name: str, sample: Sample) -> EvalResult:
    return EvalResult(
        task_type=TASK,
        dataset_type=sample.hub.path if sample.hub else name,
        dataset_name=name if sample.whole else f"{name} ({sample.problems} problems)",
        dataset_config=_config(sample),
        dataset_split=sample.hub.split if sample.hub else None,
        metric_type="accuracy",
        metric_name=f"accuracy, {_method(row)}",
        metric_value=_value(row, name),
        metric_args={"problems": sample.problems, "interval_95": [round(100 * end, 2) for end in row.intervals[name]]},
    )


def _config(sample: Sample) -> str | None:
    """The dataset's configuration, if it has exactly one."""
    configs = sample.hub.configs if sample.hub else ()
    return configs[0] if len(configs) == 1 else None


def _value(row: TableRow, name: str) -> float:
    return round(100 * row.cells[name], 2)


def _method(row: TableRow) -> str:
    return f"{row.method}, N = {row.n}"


def _notes(row: TableRow, name: str, sample: Sample) -> str:
    low, high = map(percent, row.intervals[name])
    return f"{row.model}: {_method(row)}; 95% interval {low} to {high}, {sample.problems} problems"
