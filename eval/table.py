"""The records of runs -> the field's tables: a policy, then what a reward model and a method make of it.

    python -m eval.table --runs '[runs/eval/builtin]' --format markdown

A column a benchmark, then their mean, the paired difference of means to the policy's own row with its 95% bootstrap
interval over problems, candidates, and tokens and seconds a problem. Shards of one run are read together. `--layout
aggregations` has a row for each rule that makes one reward of step rewards (the tables of MM-PRM), and `--layout curve`
the best of 1, 2, 4, ... A candidate without an answer is not right; how many there are is told below the table.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import mul
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml

from eval.layouts import FORMATS, Format, TableRow
from vlprm.config import run
from vlprm.metrics import expected_best_of
from vlprm.records import iterate_finished
from vlprm.schema import SCHEMA_VERSION
from vlprm.scoring import AGGREGATIONS
from vlprm.search import select
from vlprm.search.select import Candidate

Layout = Literal["methods", "aggregations", "curve"]
Values = dict[str, dict[str, float]]  # by benchmark and problem: how right the choice is
RESAMPLES = 2000
NOT_RESULTS = ("run", "shard", "ray", "workers", "device", "unit")  # settings that do not change what is measured
POLICY = "policy alone"


@dataclass(frozen=True)
class TableConfig:
    """Print a table.

    Args:
        runs: run folders of eval.run.
        layout: methods, aggregations (every rule of best-of-N), or curve (best-of-n by n).
        format: text, markdown, latex or csv.
        published: a file of published rows to stand below, such as eval/published.yaml.
    """

    runs: tuple[Path, ...]
    layout: Layout = "methods"
    format: Format = "text"
    published: Path | None = None


@dataclass
class Run:
    """What the shards of one run say: how right each row is, what a problem cost, and what has no result."""

    label: str
    rows: dict[str, Values] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    sizes: dict[str, int] = field(default_factory=dict)
    costs: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    candidates: int = 0
    no_results: int = 0
    failures: Counter[str] = field(default_factory=Counter)


class Said(NamedTuple):
    """What a table needs of a record."""

    at: int
    benchmark: str
    problem: str
    failure: str
    values: tuple[tuple[str, int, float], ...] = ()  # name, candidates and value of each row that it speaks of
    spent: tuple[float, float] = (0, 0)
    candidates: int = 0
    no_results: int = 0


def main(config: TableConfig) -> None:
    runs = read_runs(config.runs, config.layout)
    rows = [row for one in runs for row in table_rows(one)]
    rows += published_rows(config.published) if config.published else []
    sys.stdout.write(FORMATS[config.format](rows))
    for one in runs:
        failed = "".join(f", {count} problems failed: {name}" for name, count in one.failures.items())
        print(
            f"{one.label}: {one.no_results} of {one.candidates} candidates without an answer{failed}", file=sys.stderr
        )


def read_runs(folders: Sequence[Path], layout: Layout) -> list[Run]:
    """Runs by what they are of. ValueError where two of different settings would have one name."""
    runs: dict[str, tuple[dict[str, Any], Run, list[Said]]] = {}
    for folder in folders:
        path = folder / "config.yaml"
        if not path.is_file():
            raise ValueError(f"{folder} has no config.yaml; give the run folder of eval.run")
        settings = yaml.safe_load(path.read_text())
        settings = {name: value for name, value in settings.items() if name not in NOT_RESULTS}
        label = label_of(settings)
        known, _, all_said = runs.setdefault(label, (settings, Run(label), []))
        if known != settings:
            raise ValueError(f"{folder} and another run of {label!r} have different settings; print a table of each")
        for record in iterate_finished(folder / "records.jsonl", "eval.run"):
            all_said.append(said(record, settings["search"]["aggregation"], layout))
    for _, one, all_said in runs.values():
        for each in sorted(all_said, key=lambda each: each.at):  # they stand in the order in which they were done
            add(one, each)
    return [one for _, one, _ in runs.values()]


def label_of(settings: dict[str, Any]) -> str:
    names = [Path(settings[name]).name for name in ("policy", "critic") if settings.get(name)]
    reward_model = settings.get("reward_model")
    if reward_model:
        path = Path(reward_model)
        names.insert(1, path.name if path.name != "prm" else path.parent.name)
    return " + ".join(names)


def said(record: dict[str, Any], aggregation: Any, layout: Layout) -> Said:
    if record.get("schema") != SCHEMA_VERSION:
        raise ValueError(
            f"{record['key']} has schema {record.get('schema')!r}, this code reads {SCHEMA_VERSION}; run eval.run again"
        )
    named = record["at"], record["benchmark"], record["problem"]
    if record["failure"]:
        return Said(*named, record["failure"])
    right = [float(c["right"] is True) for c in record["candidates"]]
    no_results = sum(c["right"] is None for c in record["candidates"])
    cost = record["cost"]
    spent = (cost["policy_tokens"] + cost["critic_tokens"] + cost["scorer_tokens"], cost["seconds"])
    return Said(*named, "", tuple(values_of(record, right, aggregation, layout)), spent, len(right), no_results)


def add(one: Run, each: Said) -> None:
    if each.failure:
        one.failures[each.failure] += 1
        return
    one.candidates += each.candidates
    one.no_results += each.no_results
    for name, size, value in each.values:
        one.rows[name][each.benchmark][each.problem] = value
        one.sizes[name] = max(size, one.sizes.get(name, 0))
        one.costs[name].append(each.spent)


def values_of(
    record: dict[str, Any], right: Sequence[float], aggregation: Any, layout: Layout
) -> Iterator[tuple[str, int, float]]:
    """Name, candidates and value of each row that a record speaks of."""
    if record["method"] != "pool":
        if layout == "methods":
            yield record["method"], len(right), _chosen(record["shares"], right)
        return
    pool, n = [candidate(c) for c in record["candidates"]], len(right)
    yield POLICY, 1, _chosen(select.sample(pool), right)
    scored = any(c.rewards for c in pool)
    if layout == "curve":
        rewards = select.solution_rewards(pool, aggregation)
        ranked = [right[i] for i, _ in sorted(select.ranking(pool, rewards).items(), key=lambda pair: -pair[1])]
        yield from ((f"best of {k}", k, expected_best_of(ranked, min(k, len(ranked)))) for k in _powers(n))
        return
    yield "majority", n, _chosen(select.majority(pool), right)
    for rule in (AGGREGATIONS if layout == "aggregations" else [aggregation]) if scored else ():
        rewards = select.solution_rewards(pool, rule)
        yield f"weighted majority ({rule})", n, _chosen(select.weighted_vote(pool, rewards), right)
        yield f"best of N ({rule})", n, _chosen(select.best(pool, rewards), right)
    yield "oracle", n, max(right, default=0.0)


def candidate(stored: dict[str, Any]) -> Candidate:
    rewards = [score["correct"] for score in stored["scores"] if score]
    whole = rewards and len(rewards) == len(stored["scores"])
    return Candidate(stored["answer"], tuple(rewards) if whole else None, None)


def _chosen(shares: Sequence[float], right: Sequence[float]) -> float:
    return sum(map(mul, shares, right))


def _powers(n: int) -> Iterator[int]:
    k = 1
    while k <= n:
        yield k
        k *= 2


def table_rows(one: Run) -> Iterator[TableRow]:
    apart = differences(one.rows, POLICY) if POLICY in one.rows else {}
    for name, values in one.rows.items():
        cells = {benchmark: float(np.mean(list(of.values()))) for benchmark, of in values.items()}
        tokens, seconds = np.mean(one.costs[name], axis=0)
        title = one.label if name == POLICY else f"+ {name}"
        yield TableRow(title, cells, apart.get(name), one.sizes[name], float(tokens), float(seconds))


def differences(rows: Mapping[str, Values], base: str) -> dict[str, tuple[float, float, float]]:
    """For each other row, the difference of its mean over benchmarks to that of the base, and its interval: problems
    are drawn anew within each benchmark, the same for all rows. A row that was not asked the same has none."""
    asked = {benchmark: list(of) for benchmark, of in rows[base].items()}
    alike = [name for name, values in rows.items() if name != base and _same(values, rows[base])]
    rng = np.random.default_rng(0)
    means, drawn = np.zeros(len(alike)), np.zeros((RESAMPLES, len(alike)))
    for benchmark, problems in asked.items():
        columns = [[rows[name][benchmark][i] for i in problems] for name in [base, *alike]]
        apart_PR = np.array(columns[1:]).reshape(len(alike), len(problems)).T - np.array(columns[0])[:, None]
        means += apart_PR.mean(axis=0) / len(asked)
        for k in range(RESAMPLES):  # all at once, the draws would fill the memory
            times_P = np.bincount(rng.integers(0, len(problems), len(problems)), minlength=len(problems))
            drawn[k] += times_P.astype(float) @ apart_PR / len(problems) / len(asked)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0) if alike else ((), ())
    return {name: (float(m), float(a), float(b)) for name, m, a, b in zip(alike, means, low, high, strict=True)}


def _same(values: Values, base: Values) -> bool:
    return {name: of.keys() for name, of in values.items()} == {name: of.keys() for name, of in base.items()}


def published_rows(path: Path) -> list[TableRow]:
    """Rows of others, quoted: `{label, source, cells: {benchmark: percent}}`. ValueError where one has no source."""
    rows = yaml.safe_load(path.read_text())
    for row in rows:
        if not row.get("source"):
            raise ValueError(f"{path}: the row {row.get('label')!r} names no source; add one")
    return [
        TableRow(f"{row['label']} [{row['source']}]", {k: v / 100 for k, v in row["cells"].items()}, None, row.get("n"))
        for row in rows
    ]


if __name__ == "__main__":
    run(main, TableConfig)
