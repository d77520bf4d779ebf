"""The records of runs, as tables need them: how right each row is, what it cost, and what has no result."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from operator import mul
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from eval.cards import ORACLE
from eval.jobs import POOL, POOLED
from vlprm.metrics import expected_best_of
from vlprm.records import iterate_finished
from vlprm.schema import SCHEMA_VERSION
from vlprm.scoring import AGGREGATIONS
from vlprm.search import select
from vlprm.search.select import Candidate
from vlprm.search.tokens import tokens_of_first

Layout = Literal["methods", "aggregations", "curve"]
Values = dict[str, dict[str, float]]  # by benchmark and problem: how right the choice is
NOT_RESULTS = ("run", "shard", "ray", "workers", "device", "unit")  # settings that do not change what is measured
POLICY = "policy alone"


class Cell(NamedTuple):
    """What a record says of a row: of so many candidates, how right the choice is, and its tokens and seconds; None for
    seconds that were not measured, since others' work was in them."""

    name: str
    n: int
    value: float
    tokens: float
    seconds: float | None = None


class Pool(NamedTuple):
    """The scored candidates of a problem, in the order of sampling; `first` are the tokens of the first 1, 2, ..."""

    candidates: list[Candidate]
    right: list[float]
    first: list[int]


class Said(NamedTuple):
    """What a table needs of a record: its cells; of a pool that methods are compared with, the pool; of a search, the
    tokens that it spent."""

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
        return self.settings["policy"], self.settings.get("reward_model")

    @property
    def scored(self) -> bool:
        """Whether the pool was scored. A problem of which all candidates failed is in the rows of those that were."""
        return self.models[1] is not None

    @property
    def aggregation(self) -> Any:
        return self.settings["search"]["aggregation"]


def read_runs(folders: Sequence[Path], layout: Layout, pools: bool = False) -> list[Run]:
    """Runs by what they are of, with their `pools`, if those are asked for or a search of the run is compared with
    them. ValueError where two of different settings would have one name."""
    runs: dict[str, tuple[Run, list[Said]]] = {}
    for folder in folders:
        path = folder / "config.yaml"
        if not path.is_file():
            raise ValueError(f"{folder} has no config.yaml; give the run folder of eval.run")
        settings = yaml.safe_load(path.read_text())
        part = Fraction(1, int(settings["shard"].partition("/")[2]))
        settings = {name: value for name, value in settings.items() if name not in NOT_RESULTS}
        label = label_of(settings)
        one, all_said = runs.setdefault(label, (Run(label, settings), []))
        one.part += part
        if one.settings != settings:
            raise ValueError(f"{folder} and another run of {label!r} have different settings; print a table of each")
        keep = pools or (layout == "methods" and not set(settings["methods"]) <= set(POOLED))
        for record in iterate_finished(folder / "records.jsonl", "eval.run"):
            all_said.append(said(record, one, layout, keep))
    for one, all_said in runs.values():
        for each in sorted(all_said, key=lambda each: each.at):  # they stand in the order in which they were done
            add(one, each)
    return [one for one, _ in runs.values()]


def label_of(settings: dict[str, Any]) -> str:
    names = [Path(settings[name]).name for name in ("policy", "critic") if settings.get(name)]
    reward_model = settings.get("reward_model")
    if reward_model:
        path = Path(reward_model)
        names.insert(1, path.name if path.name != "prm" else path.parent.name)
    return " + ".join(names)


def said(record: dict[str, Any], one: Run, layout: Layout, keep_pool: bool) -> Said:
    if record.get("schema") != SCHEMA_VERSION:
        raise ValueError(
            f"{record['key']} has schema {record.get('schema')!r}, this code reads {SCHEMA_VERSION}; run eval.run again"
        )
    named = record["at"], record["benchmark"], record["problem"], record["failure"]
    if record["failure"]:
        return Said(*named)
    right = [float(c["right"] is True) for c in record["candidates"]]
    counts = len(right), sum(c["right"] is None for c in record["candidates"])
    if record["method"] == POOL:
        pool = pool_of(record, right)
        cells = tuple(pool_cells(record, pool, one, layout))
        return Said(*named, POOL, cells, pool if keep_pool else None, None, *counts)
    cost = record["cost"]
    spent = cost["policy_tokens"] + cost["critic_tokens"] + cost["scorer_tokens"]
    cell = Cell(record["method"], len(right), chosen(record["shares"], right), spent, cost["seconds"])
    return Said(*named, record["method"], (cell,) * (layout == "methods"), None, spent, *counts)


def add(one: Run, each: Said) -> None:
    if each.failure:
        one.failures[each.benchmark, each.failure] += 1
        return
    one.candidates += each.candidates
    one.no_results += each.no_results
    key = each.benchmark, each.problem
    if each.pool is not None:
        one.pools[key] = each.pool
    if each.spent is not None:
        one.spent[each.method][key] = each.spent
    for cell in each.cells:
        one.rows[cell.name][each.benchmark][each.problem] = cell.value
        one.sizes[cell.name] = max(cell.n, one.sizes.get(cell.name, 0))
        one.costs[cell.name].append((cell.tokens, cell.seconds))


def pool_of(record: dict[str, Any], right: list[float]) -> Pool:
    stored = record["candidates"]
    first = tokens_of_first([c["solution"]["tokens"] for c in stored], [c["read"] for c in stored])
    return Pool([candidate(c) for c in stored], right, first)


def pool_cells(record: dict[str, Any], of: Pool, one: Run, layout: Layout) -> Iterator[Cell]:
    """What a pool says of each row. What is chosen without the reward model does not pay for it."""
    pool, right, n, seconds = of.candidates, of.right, len(of.right), record["cost"]["seconds"]
    written = sum(c["solution"]["tokens"] for c in record["candidates"])
    unscored = None if one.scored else seconds
    yield Cell(POLICY, 1, chosen(select.sample(pool), right), written / n, unscored if n == 1 else None)
    if layout == "curve":
        rewards = select.solution_rewards(pool, one.aggregation)
        ranked = [right[i] for i, _ in sorted(select.ranking(pool, rewards).items(), key=lambda pair: -pair[1])]
        for k in _powers(n):
            value = expected_best_of(ranked, min(k, len(ranked)))
            yield Cell(f"best of {k}", k, value, of.first[k - 1], seconds if k == n else None)
        return
    yield Cell("majority", n, chosen(select.majority(pool), right), written, unscored)
    for rule in (AGGREGATIONS if layout == "aggregations" else [one.aggregation]) if one.scored else ():
        rewards = select.solution_rewards(pool, rule)
        voted, best = select.weighted_vote(pool, rewards), select.best(pool, rewards)
        yield Cell(f"weighted majority ({rule})", n, chosen(voted, right), of.first[-1], seconds)
        yield Cell(f"best of N ({rule})", n, chosen(best, right), of.first[-1], seconds)
    yield Cell(ORACLE, n, max(right, default=0.0), written, unscored)


def candidate(stored: dict[str, Any]) -> Candidate:
    rewards = [score["correct"] for score in stored["scores"] if score]
    whole = rewards and len(rewards) == len(stored["scores"])
    return Candidate(stored["answer"], tuple(rewards) if whole else None, None)


def chosen(shares: Sequence[float], right: Sequence[float]) -> float:
    return sum(map(mul, shares, right))


def _powers(n: int) -> Iterator[int]:
    k = 1
    while k <= n:
        yield k
        k *= 2
