"""Read the records of runs for tables and reports: accuracy and cost per row, failures, missing answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from eval.runs.pools import POOLED, Pool, Record, curve, pool_of, refuse_uncounted, worth
from eval.tables.config import Layout
from vlprm.errors import UserError
from vlprm.runs.folder import CONFIG, json_object
from vlprm.runs.journal import iterate_finished
from vlprm.runs.pools import PARAMETERS, POOL, RECORDS
from vlprm.runs.resume import result_settings
from vlprm.schema import SCHEMA_VERSION
from vlprm.scoring.aggregate import AGGREGATIONS
from vlprm.search import METHODS, Cost
from vlprm.search.select import selectors
from vlprm.search.tokens import Parameters, Spend, pool_spend, spend_of, spend_of_first
from vlprm.viewer.names import selector_name

Values = dict[str, dict[str, float]]  # accuracy by benchmark and problem
POLICY = "policy alone"
ORACLE = "oracle"
ROLES = ("policy", "reward_model", "critic")


class Cell(NamedTuple):
    """One row's values for one problem: candidates, expected accuracy of the choice, cost, and seconds (None if the
    measured time includes work that the row does not need)."""

    name: str
    n: int
    value: float
    spend: Spend
    seconds: float | None = None


class RecordFacts(NamedTuple):
    """The parts of a record that are kept: its cells, its pool if asked for, and what a search method spent."""

    at: int
    benchmark: str
    problem: str
    failure: str
    method: str = ""
    cells: tuple[Cell, ...] = ()
    pool: Pool | None = None
    spent: Spend | None = None
    candidates: int = 0
    no_results: int = 0


Key = tuple[str, str]  # a benchmark and a problem


@dataclass
class Run:
    """The merged shards of one run: accuracy, cost and failures. `parameters`: those of its models, if the run states
    them. `part`: share of the problems covered by the shards that were read. `spent`: what each search method spent per
    problem."""

    label: str
    settings: dict[str, Any]
    parameters: Parameters | None = None
    folders: list[Path] = field(default_factory=list)
    part: Fraction = Fraction(0)
    rows: dict[str, Values] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    sizes: dict[str, int] = field(default_factory=dict)
    costs: dict[str, list[tuple[Spend, float | None]]] = field(default_factory=lambda: defaultdict(list))
    pools: dict[Key, Pool] = field(default_factory=dict)
    spent: dict[str, dict[Key, Spend]] = field(default_factory=lambda: defaultdict(dict))
    candidates: int = 0
    no_results: int = 0
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def models(self) -> tuple[Any, Any]:
        """Checkpoints of the policy and the reward model."""
        policy, reward_model = self.settings["policy"], self.settings["reward_model"]
        return policy["checkpoint"], reward_model and reward_model["checkpoint"]

    @property
    def scored(self) -> bool:
        """Whether the run has a reward model. Rows that use it include problems whose candidates all failed."""
        return self.models[1] is not None

    @property
    def aggregation(self) -> Any:
        """The aggregation fixed in the config."""
        return self.settings["search"]["aggregation"]


def read_runs(
    folders: Sequence[Path], layout: Layout = "methods", pools: bool = False, steps: bool = False
) -> list[Run]:
    """Read runs, and merge shards by the names of their models. Pools are kept if `pools`, or if a search method is
    compared with them; `steps` adds scores and ground truth per step. UserError if runs with the same name have
    different settings, or the same record twice."""
    runs: dict[str, tuple[Run, list[RecordFacts]]] = {}
    seen: dict[str, set[str]] = defaultdict(set)
    if not folders:
        raise UserError("runs is empty; name at least one run folder of eval.run")
    for folder in folders:
        path = folder / CONFIG
        if not path.is_file():
            raise UserError(f"{folder} has no config.yaml; pass a run folder of eval.run")
        settings = yaml.safe_load(path.read_text())
        if not {"methods", "shard"} <= set(settings):
            raise UserError(f"{folder} is the run folder of another command; pass one of eval.run")
        part = Fraction(1, int(settings["shard"].partition("/")[2]))
        settings = {name: value for name, value in result_settings(settings).items() if name != "shard"}
        label = label_of(settings)
        known = json_object(folder / PARAMETERS)
        parameters = Parameters(**known) if known else None
        one, all_facts = runs.setdefault(label, (Run(label, settings, parameters), []))
        one.part += part
        one.folders.append(folder)
        if one.settings != settings:
            raise UserError(f"{folder} and another run of {label!r} have different settings; print a table of each")
        keep = pools or (layout == "methods" and not set(settings["methods"]) <= set(POOLED))
        for record in iterate_finished(folder / RECORDS, "eval.run"):
            if record["key"] in seen[label]:
                raise UserError(f"{folder} has {record['key']} again, as another folder of {label!r}; give each once")
            seen[label].add(record["key"])
            all_facts.append(facts_of(record, one, layout, keep, steps))
    for one, all_facts in runs.values():
        for facts in sorted(all_facts, key=lambda facts: facts.at):  # the file is in order of completion
            add(one, facts)
    return [one for one, _ in runs.values()]


def evaluation_of(folder: Path) -> Path | None:
    """The run folder of eval.run: `folder` itself or its subfolder `eval`; None if neither has records."""
    return next((one for one in (folder, folder / "eval") if (one / RECORDS).is_file()), None)


def label_of(settings: dict[str, Any]) -> str:
    """The name of a run: its models, joined by `+`."""
    return " + ".join(model_names(settings).values())


def model_names(settings: dict[str, Any]) -> dict[str, str]:
    """The names of a run's models by their roles: the last part of the path, or the one before a last part `prm`."""
    paths = {role: Path(settings[role]["checkpoint"]) for role in ROLES if settings.get(role)}
    return {
        role: path.parent.name if path.name == "prm" and path.parent.name else path.name for role, path in paths.items()
    }


def row_title(settings: dict[str, Any], name: str) -> str:
    """The title of a row: the policy, or a method with the names of the models that it uses besides the policy."""
    names, method = model_names(settings), METHODS.get(name)
    if name == POLICY:
        return names["policy"]
    scored = name not in ("majority", ORACLE) if method is None else method.needs_scorer
    used = (("reward_model", scored), ("critic", method is not None and method.needs_critic))
    by = " and ".join(names[role] for role, is_used in used if is_used and role in names)
    title = f"+ {selector_name(name)}"
    return f"{title} with {by}" if by else title


def facts_of(record: Record, one: Run, layout: Layout, keep_pool: bool, steps: bool) -> RecordFacts:
    """The parts of a record that a layout needs. UserError for another schema."""
    if record.get("schema") != SCHEMA_VERSION:
        raise UserError(
            f"{record['key']} has schema {record.get('schema')!r}, but this code reads {SCHEMA_VERSION}; repeat the run"
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
    refuse_uncounted(record)
    cost = Cost(**record["cost"])
    spent = spend_of(cost, one.parameters)
    value = worth(record["shares"], [float(r is True) for r in right])
    cell = Cell(record["method"], len(right), value, spent, cost.seconds)
    return RecordFacts(*named, record["method"], (cell,) * (layout == "methods"), None, spent, *counts)


def add(one: Run, facts: RecordFacts) -> None:
    """Add a record to its run."""
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
        one.costs[cell.name].append((cell.spend, cell.seconds))


def pool_cells(record: Record, pool: Pool, one: Run, layout: Layout) -> Iterator[Cell]:
    """The cells of a pool. Rows that do not use the reward model do not include its cost."""
    values, n, seconds = pool.values, len(pool.candidates), record["cost"]["seconds"]
    sampled, read, scored = map(sum, zip(*pool.spent, strict=True))
    plain = pool_spend(sampled, pool.prompt + read, 0, one.parameters)
    whole = pool_spend(sampled, pool.prompt + read, scored, one.parameters)
    alone = pool_spend(sampled / n, pool.prompt + read / n, 0, one.parameters)
    unscored = None if one.scored else seconds

    def chosen(selector: str, rule: Any = one.aggregation) -> float:
        return worth(selectors(rule)[selector](pool.candidates), values)

    yield Cell(POLICY, 1, chosen("random"), alone, unscored if n == 1 else None)
    if layout == "curve":
        costs = spend_of_first(pool.spent, pool.prompt, one.parameters)
        for k, value in curve(pool, one.aggregation).items():
            yield Cell(f"best of {k}", k, value, costs[k - 1], seconds if k == n else None)
        return
    yield Cell("majority", n, chosen("majority"), plain, unscored)
    for rule in (AGGREGATIONS if layout == "aggregations" else [one.aggregation]) if one.scored else ():
        weighted = chosen("weighted_majority", rule)
        yield Cell(f"weighted_majority_{rule}", n, weighted, whole, seconds)
        yield Cell(f"prm_{rule}", n, chosen(f"prm_{rule}", rule), whole, seconds)
    yield Cell(ORACLE, n, max(values, default=0.0), plain, unscored)
