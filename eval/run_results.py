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
from vlprm.metrics import expected_best_of
from vlprm.records import iterate_finished
from vlprm.schema import SCHEMA_VERSION
from vlprm.scoring import AGGREGATIONS
from vlprm.search import select
from vlprm.search.select import Candidate

Layout = Literal["methods", "aggregations", "curve"]
Values = dict[str, dict[str, float]]  # by benchmark and problem: how right the choice is
NOT_RESULTS = ("run", "shard", "ray", "workers", "device", "unit")  # settings that do not change what is measured
POLICY = "policy alone"


@dataclass
class Run:
    """What the shards of one run say: how right each row is, what a problem cost, and what has no result."""

    label: str
    settings: dict[str, Any]
    part: Fraction = Fraction(0)  # of the problems, by the shards that were read
    rows: dict[str, Values] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    sizes: dict[str, int] = field(default_factory=dict)
    costs: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    candidates: int = 0
    no_results: int = 0
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)


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


def read_runs(folders: Sequence[Path], layout: Layout) -> list[Run]:
    """Runs by what they are of. ValueError where two of different settings would have one name."""
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
        for record in iterate_finished(folder / "records.jsonl", "eval.run"):
            all_said.append(said(record, settings["search"]["aggregation"], layout))
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
        one.failures[each.benchmark, each.failure] += 1
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
    yield ORACLE, n, max(right, default=0.0)


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
