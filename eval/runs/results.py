"""The records of runs, as tables and reports need them: how right each row is, what it cost, what has no result."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from eval.runs.pools import POOLED, Pool, Record, curve, pool_of, worth
from eval.tables.config import Layout
from vlprm.errors import UserError
from vlprm.runs.folder import CONFIG
from vlprm.runs.journal import iterate_finished
from vlprm.runs.pools import POOL, RECORDS
from vlprm.schema import SCHEMA_VERSION
from vlprm.scoring.aggregate import AGGREGATIONS
from vlprm.search.select import selectors

Values = dict[str, dict[str, float]]  # by benchmark and problem: how right the choice is
NOT_RESULTS = ("run", "shard", "ray", "workers", "unit")  # settings that do not change what is measured
POLICY = "policy alone"
ORACLE = "oracle"


class Cell(NamedTuple):
    """What a record says of a row: its number of candidates, how right the choice is, its tokens and its seconds; None
    for seconds that were not measured, since others' work was in them."""

    name: str
    n: int
    value: float
    tokens: float
    seconds: float | None = None


class RecordFacts(NamedTuple):
    """What is kept of a record: its cells; of a pool that is asked for, the pool; of a search, the tokens that it
    spent."""

    at: int
    benchmark: str
    problem: str
    failure: str
    method: str = ""
    cells: tuple[Cell, ...] = ()
    pool: Pool | None = None
    spent: int | None = None
    candidates: int = 0
    no_results: int = 0


Key = tuple[str, str]  # a benchmark and a problem


@dataclass
class Run:
    """What the shards of one run say: how right each row is, what a problem cost, and what has no result. `part` is
    the share of the problems in the shards that were read; `spent` are the tokens of each search."""

    label: str
    settings: dict[str, Any]
    part: Fraction = Fraction(0)
    rows: dict[str, Values] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    sizes: dict[str, int] = field(default_factory=dict)
    costs: dict[str, list[tuple[float, float | None]]] = field(default_factory=lambda: defaultdict(list))
    pools: dict[Key, Pool] = field(default_factory=dict)
    spent: dict[str, dict[Key, int]] = field(default_factory=lambda: defaultdict(dict))
    candidates: int = 0
    no_results: int = 0
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def models(self) -> tuple[Any, Any]:
        policy, reward_model = self.settings["policy"], self.settings["reward_model"]
        return policy["checkpoint"], reward_model and reward_model["checkpoint"]

    @property
    def scored(self) -> bool:
        """Whether the pool was scored. A problem of which all candidates failed is in the rows of those that were."""
        return self.models[1] is not None

    @property
    def aggregation(self) -> Any:
        return self.settings["search"]["aggregation"]


def read_runs(
    folders: Sequence[Path], layout: Layout = "methods", pools: bool = False, steps: bool = False
) -> list[Run]:
    """Runs by what they are of, with their `pools`, if those are asked for or a search of the run is compared with
    them; with `steps`, also what is known of each step of these. UserError where two of different settings would have
    one name."""
    runs: dict[str, tuple[Run, list[RecordFacts]]] = {}
    for folder in folders:
        path = folder / CONFIG
        if not path.is_file():
            raise UserError(f"{folder} has no config.yaml; give the run folder of eval.run")
        settings = yaml.safe_load(path.read_text())
        part = Fraction(1, int(settings["shard"].partition("/")[2]))
        settings = {name: without_device(value) for name, value in settings.items() if name not in NOT_RESULTS}
        label = label_of(settings)
        one, all_facts = runs.setdefault(label, (Run(label, settings), []))
        one.part += part
        if one.settings != settings:
            raise UserError(f"{folder} and another run of {label!r} have different settings; print a table of each")
        keep = pools or (layout == "methods" and not set(settings["methods"]) <= set(POOLED))
        for record in iterate_finished(folder / RECORDS, "eval.run"):
            all_facts.append(facts_of(record, one, layout, keep, steps))
    for one, all_facts in runs.values():
        for facts in sorted(all_facts, key=lambda facts: facts.at):  # they stand in the order in which they were done
            add(one, facts)
    return [one for one, _ in runs.values()]


def evaluation_of(folder: Path) -> Path | None:
    """The run folder of eval.run: this one, or the folder `eval` of a folder whose stages are its sub-folders."""
    return next((one for one in (folder, folder / "eval") if (one / RECORDS).is_file()), None)


def label_of(settings: dict[str, Any]) -> str:
    names = [Path(settings[name]["checkpoint"]).name for name in ("policy", "critic") if settings.get(name)]
    reward_model = settings.get("reward_model")
    if reward_model:
        path = Path(reward_model["checkpoint"])
        names.insert(1, path.name if path.name != "prm" else path.parent.name)
    return " + ".join(names)


def without_device(value: Any) -> Any:
    """A setting; of a model, what does not depend on the machine."""
    return {name: of for name, of in value.items() if name != "device"} if isinstance(value, dict) else value


def facts_of(record: Record, one: Run, layout: Layout, keep_pool: bool, steps: bool) -> RecordFacts:
    if record.get("schema") != SCHEMA_VERSION:
        raise UserError(
            f"{record['key']} has schema {record.get('schema')!r}, this code reads {SCHEMA_VERSION}; run eval.run again"
        )
    named = record["at"], record["benchmark"], record["problem"], record["failure"]
    if record["failure"]:
        return RecordFacts(*named)
    right = [c["right"] for c in record["candidates"]]
    counts = len(right), right.count(None)
    if record["method"] == POOL:
        pool = pool_of(record, steps)
        cells = tuple(pool_cells(record, pool, one, layout))
        return RecordFacts(*named, POOL, cells, pool if keep_pool else None, None, *counts)
    cost = record["cost"]
    spent = cost["policy_tokens"] + cost["critic_tokens"] + cost["scorer_tokens"]
    value = worth(record["shares"], [float(r is True) for r in right])
    cell = Cell(record["method"], len(right), value, spent, cost["seconds"])
    return RecordFacts(*named, record["method"], (cell,) * (layout == "methods"), None, spent, *counts)


def add(one: Run, facts: RecordFacts) -> None:
    if facts.failure:
        one.failures[facts.benchmark, facts.failure] += 1
        return
    one.candidates += facts.candidates
    one.no_results += facts.no_results
    key = facts.benchmark, facts.problem
    if facts.pool is not None:
        one.pools[key] = facts.pool
    if facts.spent is not None:
        one.spent[facts.method][key] = facts.spent
    for cell in facts.cells:
        one.rows[cell.name][facts.benchmark][facts.problem] = cell.value
        one.sizes[cell.name] = max(cell.n, one.sizes.get(cell.name, 0))
        one.costs[cell.name].append((cell.tokens, cell.seconds))


def pool_cells(record: Record, pool: Pool, one: Run, layout: Layout) -> Iterator[Cell]:
    """What a pool says of each row. What is chosen without the reward model does not pay for it."""
    values, n, seconds = pool.values, len(pool.candidates), record["cost"]["seconds"]
    written = sum(c["solution"]["tokens"] for c in record["candidates"])
    unscored = None if one.scored else seconds

    def chosen(selector: str, rule: Any = one.aggregation) -> float:
        return worth(selectors(rule)[selector](pool.candidates), values)

    yield Cell(POLICY, 1, chosen("random"), written / n, unscored if n == 1 else None)
    if layout == "curve":
        for k, value in curve(pool, one.aggregation).items():
            yield Cell(f"best of {k}", k, value, pool.first[k - 1], seconds if k == n else None)
        return
    yield Cell("majority", n, chosen("majority"), written, unscored)
    for rule in (AGGREGATIONS if layout == "aggregations" else [one.aggregation]) if one.scored else ():
        weighted = chosen("weighted_majority", rule)
        yield Cell(f"weighted majority ({rule})", n, weighted, pool.first[-1], seconds)
        yield Cell(f"best of N ({rule})", n, chosen(f"prm_{rule}", rule), pool.first[-1], seconds)
    yield Cell(ORACLE, n, max(values, default=0.0), written, unscored)
