"""The records of runs -> the field's tables: a policy, then what a reward model and a method make of it.

    python -m eval.table --runs '[runs/eval/builtin]' --format markdown

A column a benchmark, then their mean, the paired difference of means to the policy's own row with its 95% bootstrap
interval over problems, candidates, and tokens and seconds a problem: those of the row's candidates, the reward model's
where it was asked. Below each search method stands plain best-of-N on as many tokens as the method took for the same
problem, candidates of the run's pool in their order, and how much better the method is; where the pool ends first,
`--pool` names a run with a larger one. Shards of one run are read together. `--layout aggregations` has a row for each
rule that makes one reward of step rewards (the tables of MM-PRM), and `--layout curve` the best of 1, 2, 4, ...
A candidate without an answer is not right; how many there are is told below the table.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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
from vlprm.search.tokens import affordable, tokens_of_first

Layout = Literal["methods", "aggregations", "curve"]
Values = dict[str, dict[str, float]]  # by benchmark and problem: how right the choice is
RESAMPLES = 2000
POLICY = "policy alone"


@dataclass(frozen=True)
class TableConfig:
    """Print a table.

    Args:
        runs: run folders of eval.run.
        layout: methods, aggregations (every rule of best-of-N), or curve (best-of-n by n).
        format: text, markdown, latex or csv.
        pool: run folder of eval.run with a larger pool, for best of N at equal tokens.
        published: a file of published rows to stand below, such as eval/published.yaml.
    """

    runs: tuple[Path, ...]
    layout: Layout = "methods"
    format: Format = "text"
    pool: Path | None = None
    published: Path | None = None


@dataclass(frozen=True)
class Cell:
    """What a record says of a row: of so many candidates, how right the choice is, and its tokens and seconds; None for
    seconds that were not measured, since others' work was in them."""

    name: str
    n: int
    value: float
    tokens: float
    seconds: float | None = None


@dataclass(frozen=True)
class Pool:
    """The scored candidates of a problem, in the order of sampling; `first` are the tokens of the first 1, 2, ..."""

    candidates: list[Candidate]
    right: list[float]
    first: list[int]


Key = tuple[str, str]  # a benchmark and a problem


@dataclass
class Run:
    """What the shards of one run say: how right each row is, what a problem cost, and what has no result."""

    label: str
    models: tuple[Any, Any]  # policy and reward model
    search: dict[str, Any]
    rows: dict[str, Values] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    sizes: dict[str, int] = field(default_factory=dict)
    costs: dict[str, list[Cell]] = field(default_factory=lambda: defaultdict(list))
    pools: dict[Key, Pool] = field(default_factory=dict)
    spent: dict[str, dict[Key, int]] = field(default_factory=lambda: defaultdict(dict))  # by a search method
    candidates: int = 0
    no_results: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def scored(self) -> bool:
        """Whether the pool was scored. A problem of which all candidates failed is in the rows of those that were."""
        return self.models[1] is not None


def main(config: TableConfig) -> None:
    runs = read_runs(config.runs, config.layout)
    rows = [row for one in runs for row in table_rows(one, pool_for(one, config.pool))]
    rows += published_rows(config.published) if config.published else []
    sys.stdout.write(FORMATS[config.format](rows))
    for one in runs:
        failed = "".join(f", {count} problems failed: {name}" for name, count in one.failures.items())
        print(
            f"{one.label}: {one.no_results} of {one.candidates} candidates without an answer{failed}", file=sys.stderr
        )


def read_runs(folders: Sequence[Path], layout: Layout) -> list[Run]:
    """Runs by what they are of. ValueError where two of different settings would have one name."""
    runs: dict[str, tuple[dict[str, Any], Run]] = {}
    for folder in folders:
        path = folder / "config.yaml"
        if not path.is_file():
            raise ValueError(f"{folder} has no config.yaml; give the run folder of eval.run")
        settings = yaml.safe_load(path.read_text())
        settings = {name: value for name, value in settings.items() if name not in ("run", "shard", "device", "unit")}
        label = label_of(settings)
        models = settings["policy"], settings.get("reward_model")
        known, one = runs.setdefault(label, (settings, Run(label, models, settings["search"])))
        if known != settings:
            raise ValueError(f"{folder} and another run of {label!r} have different settings; print a table of each")
        for record in iterate_finished(folder / "records.jsonl", "eval.run"):
            add(one, record, layout)
    return [one for _, one in runs.values()]


def label_of(settings: dict[str, Any]) -> str:
    names = [Path(settings[name]).name for name in ("policy", "critic") if settings.get(name)]
    reward_model = settings.get("reward_model")
    if reward_model:
        path = Path(reward_model)
        names.insert(1, path.name if path.name != "prm" else path.parent.name)
    return " + ".join(names)


def add(one: Run, record: dict[str, Any], layout: Layout) -> None:
    if record.get("schema") != SCHEMA_VERSION:
        raise ValueError(
            f"{record['key']} has schema {record.get('schema')!r}, this code reads {SCHEMA_VERSION}; run eval.run again"
        )
    if "failure" in record:
        one.failures[record["failure"]] += 1
        return
    right = [float(c["right"] is True) for c in record["candidates"]]
    one.candidates += len(right)
    one.no_results += sum(c["right"] is None for c in record["candidates"])
    key = record["benchmark"], record["problem"]
    if record["method"] == "pool":
        pool = one.pools[key] = pool_of(record, right)
        cells = pool_cells(record, pool, one, layout)
    else:
        cost = record["cost"]
        spent = one.spent[record["method"]][key] = cost["policy_tokens"] + cost["critic_tokens"] + cost["scorer_tokens"]
        chosen = _chosen(record["shares"], right)
        cells = iter([Cell(record["method"], len(right), chosen, spent, cost["seconds"])] * (layout == "methods"))
    for cell in cells:
        one.rows[cell.name][record["benchmark"]][record["problem"]] = cell.value
        one.sizes[cell.name] = max(cell.n, one.sizes.get(cell.name, 0))
        one.costs[cell.name].append(cell)


def pool_of(record: dict[str, Any], right: list[float]) -> Pool:
    stored = record["candidates"]
    first = tokens_of_first([c["solution"]["tokens"] for c in stored], [c["read"] for c in stored])
    return Pool([candidate(c) for c in stored], right, first)


def pool_cells(record: dict[str, Any], of: Pool, one: Run, layout: Layout) -> Iterator[Cell]:
    """What a pool says of each row. What is chosen without the reward model does not pay for it."""
    pool, right, n, seconds = of.candidates, of.right, len(of.right), record["cost"]["seconds"]
    aggregation, scored = one.search["aggregation"], one.scored
    written = sum(c["solution"]["tokens"] for c in record["candidates"])
    unscored = None if scored else seconds
    yield Cell(POLICY, 1, _chosen(select.sample(pool), right), written / n, unscored if n == 1 else None)
    if layout == "curve":
        rewards = select.solution_rewards(pool, aggregation)
        ranked = [right[i] for i, _ in sorted(select.ranking(pool, rewards).items(), key=lambda pair: -pair[1])]
        for k in _powers(n):
            value = expected_best_of(ranked, min(k, len(ranked)))
            yield Cell(f"best of {k}", k, value, of.first[k - 1], seconds if k == n else None)
        return
    yield Cell("majority", n, _chosen(select.majority(pool), right), written, unscored)
    for rule in (AGGREGATIONS if layout == "aggregations" else [aggregation]) if scored else ():
        voted = _chosen(select.weighted_majority(pool, rule), right)
        yield Cell(f"weighted majority ({rule})", n, voted, of.first[-1], seconds)
        yield Cell(f"best of N ({rule})", n, _chosen(select.best_of_n(pool, rule), right), of.first[-1], seconds)
    yield Cell("oracle", n, max(right, default=0.0), written, unscored)


def candidate(stored: dict[str, Any]) -> Candidate:
    rewards = [score["correct"] for score in stored["scores"] if score]
    whole = rewards and len(rewards) == len(stored["scores"])
    return Candidate(stored["answer"], tuple(rewards) if whole else None, None)


def _chosen(shares: Sequence[float], right: Sequence[float]) -> float:
    return sum(share * value for share, value in zip(shares, right, strict=True))


def _powers(n: int) -> Iterator[int]:
    k = 1
    while k <= n:
        yield k
        k *= 2


def table_rows(one: Run, pools: Mapping[Key, Pool]) -> Iterator[TableRow]:
    for name, values in one.rows.items():
        difference = None if name == POLICY or POLICY not in one.rows else paired(values, one.rows[POLICY])
        seconds = [cell.seconds for cell in one.costs[name] if cell.seconds is not None]
        took = float(np.mean(seconds)) if len(seconds) == len(one.costs[name]) else None
        tokens = float(np.mean([cell.tokens for cell in one.costs[name]]))
        title = one.label if name == POLICY else f"+ {name}"
        yield TableRow(title, means(values), difference, one.sizes[name], tokens, took)
        if one.scored and name in one.spent and one.spent[name].keys() <= pools.keys():
            yield at_equal_tokens(one, name, pools)


def pool_for(one: Run, folder: Path | None) -> Mapping[Key, Pool]:
    """The pools that a run's methods are compared with. ValueError where they are of other models."""
    if folder is None:
        return one.pools
    (other,) = read_runs([folder], "methods")
    if other.models != one.models:
        raise ValueError(f"{folder} is of another policy or reward model than {one.label}; give a pool of the same")
    return other.pools


def at_equal_tokens(one: Run, method: str, pools: Mapping[Key, Pool]) -> TableRow:
    """Plain best-of-N on as many tokens as a method took, and the difference of the method to it."""
    plain: Values = defaultdict(dict)
    sizes, tokens, ended = [], [], 0
    for (benchmark, problem), spent in one.spent[method].items():
        pool = pools[benchmark, problem]
        n = affordable(pool.first, spent)
        shares = select.best_of_n(pool.candidates[:n], one.search["aggregation"])
        plain[benchmark][problem] = _chosen(shares, pool.right[:n])
        sizes.append(n)
        tokens.append(pool.first[n - 1])
        ended += spent - pool.first[-1] >= pool.first[-1] / len(pool.first)  # they pay for a further one
    title = f"+ best of N at the tokens of {method}, and {method} less that"
    if ended:
        title += f" (its pool ended first for {ended} of {len(sizes)} problems)"
    difference = paired(one.rows[method], plain)
    return TableRow(title, means(plain), difference, round(float(np.mean(sizes))), float(np.mean(tokens)))


def means(values: Values) -> dict[str, float]:
    return {benchmark: float(np.mean(list(of.values()))) for benchmark, of in values.items()}


def paired(values: Values, base: Values) -> tuple[float, float, float] | None:
    """The difference of the means over benchmarks, and its interval: problems are drawn anew within each benchmark.
    None where the two were not asked the same."""
    if {name: of.keys() for name, of in values.items()} != {name: of.keys() for name, of in base.items()}:
        return None
    rng = np.random.default_rng(0)
    means, drawn = [], np.zeros(RESAMPLES)
    for name, of in values.items():
        apart = np.array([value - base[name][problem] for problem, value in of.items()])
        means.append(apart.mean())
        drawn += apart[rng.integers(0, len(apart), (RESAMPLES, len(apart)))].mean(axis=1) / len(values)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean(means)), float(low), float(high)


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
