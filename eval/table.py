"""Print tables from the records of runs: the policy alone, then selectors and search methods.

    python -m eval.table --runs '[runs/eval/builtin]' --format markdown

One column per benchmark, each accuracy with its 95% bootstrap interval over problems; then their mean; the paired
difference of means to the policy alone, with its interval; the number of problems and of candidates; per problem, the
tokens that the policy, the critic and the reward model sample and read (the reward model's if the row uses it), FLOPs
(2 per token and parameter), and seconds. The rows below a search method are plain best-of-N at equal tokens and at
equal FLOPs: the first candidates of the run's pool that the method's cost pays for, problem by problem. If the pool is
too small, `--pool` names a run with a larger one. Shards of one run are read together.

`--layout aggregations` has rows for each aggregation of step rewards (as in MM-PRM), and `--layout curve` for best of
1, 2, 4, ... A candidate without an answer is not right; a line below the table counts these and each benchmark's
problems. `--format model-index` and `eval-results` write the measured rows as Hub metadata (eval/tables/hub.py).
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import yaml

from eval.runs.pools import Pool, worth
from eval.runs.results import POLICY, Key, Run, Values, read_runs, row_title
from eval.tables.config import TableConfig
from eval.tables.formats import FORMATS
from eval.tables.rows import Sample, TableRow
from eval.tables.statistics import differences, intervals, mean_spend, means
from vlprm.benchmarks import BENCHMARKS
from vlprm.errors import UserError
from vlprm.runs.config import run
from vlprm.runs.recipes import packaged
from vlprm.search import select
from vlprm.search.tokens import UNITS, Unit, affordable, is_too_small, spend_of_first
from vlprm.viewer.names import selector_name


def main(config: TableConfig) -> None:
    """Print the table, and the counts of problems and failures to stderr."""
    runs = read_runs(config.runs, config.layout)
    larger = read_runs([config.pool], "methods", pools=True)[0] if config.pool else None
    rows = [row for one in runs for row in table_rows(one, pools_for(one, larger, config.pool))]
    rows += published_rows(config.published) if config.published else []
    sys.stdout.write(FORMATS[config.format](rows))
    for one in runs:
        failed = "".join(f", {count} failed: {name} ({failure})" for (name, failure), count in one.failures.items())
        problems = ", ".join(f"{name} {len(of)}" for name, of in next(iter(one.rows.values()), {}).items())
        said = f"{one.label}: problems: {problems}; {one.no_results} of {one.candidates} candidates without an answer"
        print(said + failed, file=sys.stderr)


def table_rows(one: Run, pools: Mapping[Key, Pool]) -> Iterator[TableRow]:
    """The rows of a run. `pools` serve the comparison of search methods with best-of-N at equal tokens and FLOPs."""
    apart = differences(one.rows, POLICY) if POLICY in one.rows else {}
    for name, values in one.rows.items():
        spends, seconds = zip(*one.costs[name], strict=True)
        took = None if None in seconds else float(np.mean(seconds))
        yield TableRow(
            row_title(one.settings, name),
            means(values),
            apart.get(name),
            one.sizes[name],
            mean_spend(spends),
            took,
            policy_of(one),
            one.label,
            selector_name(name),
            {benchmark: sample(one, benchmark, len(of)) for benchmark, of in values.items()},
            intervals(values),
        )
        if one.scored and name in one.spent and one.spent[name].keys() <= pools.keys():
            for unit in UNITS[: 1 if one.parameters is None else None]:
                yield at_equal_cost(one, name, pools, unit)


def pools_for(one: Run, larger: Run | None, folder: Path | None) -> Mapping[Key, Pool]:
    """The pools that a run's methods are compared with: its own, or the larger ones of the run in `folder`. UserError
    if that run has other models."""
    if larger is None:
        return one.pools
    if larger.models != one.models:
        raise UserError(f"{folder} has another policy or reward model than {one.label}; pass a pool of the same models")
    return larger.pools


def at_equal_cost(one: Run, method: str, pools: Mapping[Key, Pool], unit: Unit) -> TableRow:
    """Plain best-of-N with the tokens, or the FLOPs, that a method spent, and the method's difference to it."""
    plain: Values = defaultdict(dict)
    sizes, spends, ended = [], [], 0
    for (benchmark, problem), spent in one.spent[method].items():
        pool = pools[benchmark, problem]
        first = spend_of_first(pool.spent, pool.prompt, one.parameters)
        n = affordable(first, spent, unit)
        shares = select.best_of_n(pool.candidates[:n], one.aggregation)
        plain[benchmark][problem] = worth(shares, pool.values[:n])
        sizes.append(n)
        spends.append(first[n - 1])
        ended += is_too_small(first, spent, unit)
    name = selector_name(method)
    title = f"+ best of N at the {unit} of {name} (difference: {name} minus this row)"
    if ended:
        title += f" (pool too small for {ended} of {len(sizes)} problems)"
    apart = differences({method: one.rows[method], "plain": plain}, "plain")
    return TableRow(
        title,
        means(plain),
        apart.get(method),
        round(float(np.mean(sizes))),
        mean_spend(spends),
        group=policy_of(one),
        intervals=intervals(plain),
    )


def policy_of(one: Run) -> str:
    """The name of a run's policy."""
    return row_title(one.settings, POLICY)


def sample(one: Run, benchmark: str, problems: int) -> Sample:
    """The problems behind a cell. They are a whole benchmark of the Hub if none is missing: no limit in the config, no
    unread shard, no failure."""
    if benchmark not in BENCHMARKS:
        return Sample(problems, None, False)
    config = next(config for config in one.settings["benchmarks"] if config["name"] == benchmark)
    hub, complete = BENCHMARKS[benchmark].hub, one.part == 1 and not config["problems"]
    failed = any(name == benchmark for name, _ in one.failures)
    whole = config["subset"] in hub and complete and not failed
    return Sample(problems, hub.get(config["subset"], hub["all"]), whole)


def published_rows(path: Path) -> list[TableRow]:
    """Quoted rows of a YAML file: `{label, source, cells: {benchmark: percent}}`. UserError if one has no source."""
    file = packaged(path)
    if not file.is_file():
        raise UserError(f"there is no file {path}; the package contains eval/published.yaml")
    rows = yaml.safe_load(file.read_text())
    if not isinstance(rows, list):
        raise UserError(f"{path} is not a list of rows; write each row as `- label: ...`, as eval/published.yaml does")
    for row in rows:
        if not row.get("source"):
            raise UserError(f"{path}: row {row.get('label')!r} has no source; add its source")
    return [
        TableRow(
            f"{row['label']} [{row['source']}]",
            {k: v / 100 for k, v in row["cells"].items()},
            n=row.get("n"),
            group="published",
        )
        for row in rows
    ]


if __name__ == "__main__":
    run(main, TableConfig)
