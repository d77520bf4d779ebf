"""What the benchmarks of policy learning share: held-out problems solved by each policy, gains that are paired by
problem and seed, plans, and arms that are read once they are finished.

Shapes: S seeds, P problems.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from tests.perf.results import Array, Effect, interval_over_seeds
from vlprm.answers import is_correct
from vlprm.model.loading import load_policy
from vlprm.policy import Request
from vlprm.policy.local import LocalPolicy
from vlprm.policy.rollout import rollouts
from vlprm.runs.folder import write_atomically
from vlprm.schema import Problem, Solution
from vlprm.search.select import Candidate, majority, voters
from vlprm.tasks import TASKS

Measures = dict[str, list[float | None]]  # per problem; None: no result
MAX_TOKENS = 160
VOTES = 8  # solutions of the policy before training, whose vote stands in each table


class Job(NamedTuple):
    """A run of a benchmark: its arm, and the CPU-seconds that it is expected to take on an idle core."""

    arm: str
    seconds: float


def arguments(about: str, sizes: Mapping[str, tuple[int, int]]) -> argparse.ArgumentParser:
    """A parser with a flag for each size, as (full, small), and `--small` and `--plan`."""
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--small", action="store_true", help="a look at a size that says nothing about policies")
    parser.add_argument("--plan", action="store_true", help="print the runs and their CPU-hours, and stop")
    for name, (full, small) in sizes.items():
        parser.add_argument(f"--{name}", type=int, help=f"{full}, or {small} with --small")
    return parser


def sized(asked: argparse.Namespace, sizes: Mapping[str, tuple[int, int]]) -> argparse.Namespace:
    """The arguments with the size that `--small` decides, where no flag gives it."""
    for name, of_size in sizes.items():
        if getattr(asked, name) is None:
            setattr(asked, name, of_size[asked.small])
    return asked


def tell(jobs: Sequence[Job]) -> None:
    """Print each arm's runs and the CPU-hours of all."""
    for arm in dict.fromkeys(job.arm for job in jobs):
        own = [job.seconds for job in jobs if job.arm == arm]
        print(f"{arm:44} {len(own):4} runs {sum(own) / 60:8.1f} CPU-minutes")
    print(f"{'in all':44} {len(jobs):4} runs {sum(job.seconds for job in jobs) / 3600:8.2f} CPU-hours")


def solved(policy: str | Path, problems: Sequence[Problem], each: int, seed: int, stored: Path) -> Measures:
    """How a policy solves problems by `each` solutions. A file that is `stored` is read.

    Per problem: the share of `right` solutions among those with an answer, the right `vote` of all, the share of
    solutions with an answer (`answered`), and of those with a right answer and no wrong step (`all_right`).
    """
    if not stored.exists():
        found = asyncio.run(_solutions(LocalPolicy(load_policy(policy)), problems, each, seed))
        rows = [_measures(problem, of) for problem, of in zip(problems, found, strict=True)]
        write_atomically(stored, json.dumps({name: [row[name] for row in rows] for name in rows[0]}))
    known: Measures = json.loads(stored.read_text())
    return known


async def _solutions(engine: LocalPolicy, problems: Sequence[Problem], each: int, seed: int) -> list[list[Solution]]:
    asked = [Request(p, (), each, f"held out/{p.id}", seed, max_tokens=MAX_TOKENS) for p in problems]
    return list(await asyncio.gather(*(rollouts(engine, request) for request in asked)))


def _measures(problem: Problem, solutions: Sequence[Solution]) -> dict[str, float | None]:
    right = [is_correct(one.answer, str(problem.answer), problem.answer_type) for one in solutions]
    known = [bool(value) for value in right if value is not None]
    shares = majority(voters(problem, [Candidate(one.answer, None, None) for one in solutions]))
    verdicts = [TASKS[problem.task].verdicts(problem, one.steps) for one in solutions]
    whole = [
        value is True and all(verdict is None or verdict.correct for verdict in of)
        for value, of in zip(right, verdicts, strict=True)
    ]
    return {
        "right": fmean(known) if known else None,
        "vote": sum(share for share, value in zip(shares, right, strict=True) if value),
        "answered": len(known) / len(solutions),
        "all_right": fmean(whole),
    }


def table(of_seeds: Sequence[Measures], name: str) -> Array:
    """(S, P) a measure of the runs of an arm, one per seed; NaN for no result."""
    return np.array([[np.nan if value is None else value for value in of[name]] for of in of_seeds], dtype=float)


def mean_of(values_SP: Array) -> float | None:
    """The mean over all runs and problems with a result; None without any."""
    return None if np.isnan(values_SP).all() else float(np.nanmean(values_SP))


def gain(after_SP: Array, before_SP: Array) -> dict[str, Any]:
    """The mean difference in points, paired by seed and problem, with a 95% bootstrap interval over both: each
    resample draws seeds and problems. None without a pair of results."""
    differences_SP = 100 * (after_SP - before_SP)
    if np.isnan(differences_SP).all():
        return {"gain": None, "ci": None}
    return {"gain": float(np.nanmean(differences_SP)), "ci": [*interval_over_seeds(differences_SP)]}


def effect_of(gained: Mapping[str, Any], problems: int, seeds: int) -> Effect:
    """A gain as the effect of a claim."""
    return Effect(gained["gain"], *gained["ci"], "points", problems, seeds)


def effects_of(
    rows: Sequence[Mapping[str, Any]],
    of: str,
    measures: Sequence[str],
    rivals: Sequence[str],
    asked: argparse.Namespace,
) -> dict[str, Effect]:
    """The gains of each row's arm over its rivals, as the effects of claims. `of` is the column that says where the arm
    was tried."""
    return {
        f"{row[of]}, {row['arm']}: {measure} over {rival}": effect_of(found, asked.problems, asked.seeds)
        for row in rows
        for measure in measures
        for rival in rivals
        if (found := row.get(f"{measure}_over_{rival}", {})).get("gain") is not None
    }


def metric_lines(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
