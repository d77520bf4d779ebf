"""Teach a policy to look again: credit for zooms against the outcome alone, from two damaged starts, on fine print.

    python -m tests.perf.policy_looking
    python -m tests.perf.policy_looking --plan                        # the runs and their CPU-hours
    python -m tests.perf.policy_looking --small --arms grpo virl      # a look

The starts are made from the built-in backbone, which reads prints, by a few steps on damaged solutions of the task's
solver. *neglect*: most solutions skip their zooms and guess the print. *illusion*: they zoom rightly, and most guess
all the same, so that no reward for regions sees it. Each arm is a recipe of configs/policy at its best learning rate:
where a start has several, each arm learns at each of them from a start of its own, and the rate with the most right
answers on other problems is taken. After a run, right answers, zooms, `used` (right solutions after the last crop less
those after a blank) and blank flips (`changed_blank`: other answers after a blank) are measured on the same problems
for all arms; differences are paired by problem and seed, with 95% intervals over both. A finished arm is read.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from eval import faithfulness
from eval.runs.config import FaithfulnessConfig
from tests.perf.policy_arms import (
    VOTES,
    Job,
    Measures,
    arguments,
    effects_of,
    gain,
    mean_of,
    metric_lines,
    sized,
    solved,
    table,
    tell,
)  # fmt: skip
from tests.perf.results import FOLDER, write_result
from train import grpo
from train.policy.grpo_config import GrpoConfig, ValidationConfig
from train.policy.lessons import Lesson, batch_lessons, lesson_row
from vlprm.model.checkpoint_config import CHECKPOINT_FILE
from vlprm.model.loading import freeze, load_policy
from vlprm.policy.local import LocalPolicy
from vlprm.runs.config import parse
from vlprm.runs.folder import write_atomically
from vlprm.schema import ErrorKind, Problem
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS, fine_print
from vlprm.tasks.synthetic import Scene
from vlprm.zoom.execute import executed_steps

SIZES = {"rounds": (10, 1), "seeds": (3, 1), "problems": (512, 8), "chosen_on": (192, 8)}
OUTCOME = "grpo"
ARMS = (OUTCOME, "r_grpo", "virl", "zoom_value")


def make_read(rng: random.Random) -> Scene:
    """A scene whose question is which print a plate has. A guess at whether two prints are the same is right too
    often."""
    while (scene := fine_print.make(rng))["content"]["type"] != "read":
        pass
    return scene


FAMILY = dataclasses.replace(fine_print.FAMILY, name="read_print", question_types=("read",), make=make_read)
TASKS[FAMILY.name] = FAMILY  # for the commands that run in this process

PROBLEMS, EACH = 12, 8  # problems of a round, and solutions of each
TAUGHT, BATCH = 100_000, 16  # index of the first problem of the damaged solutions, and solutions per step
CHOOSING = 99  # the seed of the start on which learning rates are chosen
MEASURES = ("right", "zooms_at_all", "correct_zooms", "used", "changed_blank", "no_answer_blank")
# CPU-seconds of a start, of a rollout that is sampled and learnt, and of measuring a problem.
START, ROLLOUT, MEASURE = 60.0, 0.08, 0.2
BY_ROLLOUTS = {"zoom_value": 3.0}  # how much longer rounds take whose zooms are valued by rollouts


@dataclass(frozen=True)
class Start:
    """A damage: the share of guessing solutions, whether these zoom, the steps that teach it and their learning rate,
    and the learning rates of the arms."""

    guess: float
    zooms: bool
    steps: int
    teach: float
    rates: tuple[float, ...]


STARTS = {
    "neglect": Start(0.7, False, 12, 5e-4, (1e-4,)),
    "illusion": Start(0.9, True, 20, 1e-4, (1e-4, 2e-4)),
}


def main() -> None:
    parser = arguments(str(__doc__), SIZES)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--starts", nargs="+", default=list(STARTS))
    asked = sized(parser.parse_args(), SIZES)
    if asked.plan:
        tell([job for name in asked.starts for job in jobs_of(name, asked)])
        return
    rows = [row for name in asked.starts for row in rows_of_start(name, asked)]
    for row in rows:
        print(json.dumps(row))
    write_result(
        "policy_looking",
        rows,
        headline(rows),
        effects_of(rows, "start", ("right", "used"), ("start", "outcome"), asked),
    )


def jobs_of(name: str, asked: argparse.Namespace) -> list[Job]:
    """The runs from a start, with their expected CPU-seconds."""
    tries = len(STARTS[name].rates) if len(STARTS[name].rates) > 1 else 0
    starts = asked.seeds + (tries > 0)
    jobs = [Job(f"{name}: starts", START + asked.problems * MEASURE)] * starts
    for arm in asked.arms:
        run = asked.rounds * PROBLEMS * EACH * ROLLOUT * BY_ROLLOUTS.get(arm, 1.0)
        jobs += [Job(f"{name}, {arm}: learning rates", run + asked.chosen_on * MEASURE)] * tries
        jobs += [Job(f"{name}, {arm}", run + asked.problems * MEASURE)] * asked.seeds
    return jobs


def rows_of_start(name: str, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for the start, one for its vote, and one for each arm."""
    start, seeds = STARTS[name], range(asked.seeds)
    before = [measured(damaged(name, start, seed), "validation", asked.problems) for seed in seeds]
    runs: dict[str, list[Measures]] = {}
    told: dict[str, dict[str, Any]] = {}
    for arm in asked.arms:
        rates = {rate: tried(name, arm, rate, asked) for rate in start.rates} if len(start.rates) > 1 else {}
        best = max(rates, key=lambda rate: rates[rate]) if rates else start.rates[0]
        folders = [learnt(name, arm, best, seed, asked) for seed in seeds]
        runs[arm] = [measured(run / grpo.POLICY, "validation", asked.problems) for run in folders]
        told[arm] = {"learning_rate": best, "right_by_rate": rates, **costs(folders)}
    problems = [FAMILY.problem("validation", i) for i in range(asked.problems)]
    stored = FOLDER / "policy_looking" / f"{name}-0" / f"vote-{asked.problems}.json"
    vote = solved(damaged(name, start, 0), problems, VOTES, 0, stored)["vote"]
    rows: list[dict[str, Any]] = [
        {"start": name, "arm": "before", **means(before)},
        {"start": name, "arm": f"before, vote of {VOTES}", "right": fmean(share or 0.0 for share in vote)},
    ]
    for arm, of_seeds in runs.items():
        row: dict[str, Any] = {"start": name, "arm": arm, **told[arm], **means(of_seeds)}
        for measure in ("right", "used"):
            after = table(of_seeds, measure)
            row[f"{measure}_over_start"] = gain(after, table(before, measure))
            if OUTCOME in runs and arm != OUTCOME:
                row[f"{measure}_over_outcome"] = gain(after, table(runs[OUTCOME], measure))
        rows.append(row)
    return rows


def means(of_seeds: Sequence[Measures]) -> dict[str, float | None]:
    answered = 1 - np.isnan(table(of_seeds, "right")).mean()
    return {"answered": float(answered), **{name: mean_of(table(of_seeds, name)) for name in MEASURES}}


def costs(folders: Sequence[Path]) -> dict[str, Any]:
    """The share of right rollouts by round of each seed, the rollouts that were learnt, and seconds."""
    lines = [metric_lines(folder) for folder in folders]
    return {
        "curves": [[line["right"] for line in of if "right" in line] for of in lines],
        "rollouts": sum(line.get("rollouts", 0) for line in lines[0]),
        "seconds": [json.loads((folder / "seconds.json").read_text())["grpo"] for folder in folders],
    }


def damaged(name: str, start: Start, seed: int) -> Path:
    """The built-in backbone with the damage; it is taught unless that is done."""
    folder = FOLDER / "policy_looking" / f"{name}-{seed}" / "start"
    if (folder / CHECKPOINT_FILE).exists():
        return folder
    torch.manual_seed(seed)
    policy = load_policy("builtin/backbone")
    freeze(policy.model, policy.inputs.family, ("vision",))
    optimizer = torch.optim.AdamW([p for p in policy.model.parameters() if p.requires_grad], lr=start.teach)
    for step in range(start.steps):
        first = TAUGHT * (1 + seed) + step * BATCH
        problems = [FAMILY.problem("train", first + i) for i in range(BATCH)]
        rows = [lesson_row(solution(problem, start, seed), policy.inputs) for problem in problems]
        policy.model(**batch_lessons(rows, policy.inputs)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    policy.model.save_pretrained(folder)
    policy.inputs.processor.save_pretrained(folder)
    policy.config.save(folder)
    return folder


def solution(problem: Problem, start: Start, seed: int) -> Lesson:
    """The solver's solution, in which most prints are guessed."""
    chance = random.Random(f"{seed}/{problem.id}")
    guesses = chance.random() < start.guess

    def write(kind: ErrorKind, concept: str, truth: Any, near: Sequence[Any]) -> Any:
        return chance.choice([truth, *near]) if guesses and concept.startswith("print ") else truth

    texts = FAMILY.solve(problem.meta["scene"], write)
    shown = [text for text in texts if start.zooms or not guesses or not text.startswith("[zoom]")]
    return Lesson(problem, executed_steps(problem, shown), (False,) * len(shown))


def tried(name: str, arm: str, rate: float, asked: argparse.Namespace) -> float:
    """The share of problems that an arm solves in the end at a learning rate, on problems that are not measured. No
    answer counts as none right, because a rate at which a policy falls silent is not to be chosen."""
    folder = learnt(name, arm, rate, CHOOSING, asked)
    return fmean(value or 0.0 for value in measured(folder / grpo.POLICY, "test", asked.chosen_on)["right"])


def learnt(name: str, arm: str, rate: float, seed: int, asked: argparse.Namespace) -> Path:
    """The run of an arm from a start; a run that was killed goes on."""
    start = damaged(name, STARTS[name], seed)
    run = start.parent / f"{arm}-{asked.rounds}-{rate:g}"
    config = parse(GrpoConfig, ["--config", f"policy/{arm}", "--run", str(run)])
    config = dataclasses.replace(
        config,
        policy=ModelConfig(str(start)),
        tasks=(FAMILY.name,),
        first=TAUGHT * (200 + seed),
        rounds=asked.rounds,
        rollouts=dataclasses.replace(config.rollouts, problems=PROBLEMS, each=EACH),
        learning_rate=rate,
        validation=ValidationConfig(problems=0),
        seed=seed,
    )
    grpo.main(config)
    return run


def measured(folder: Path, split: str, problems: int) -> Measures:
    """The measures of a policy per problem of a split, by one solution each; stored beside the policy."""
    stored = folder.parent / f"{folder.name}-{split}-{problems}.json"
    if not stored.exists():
        config = FaithfulnessConfig(run=folder, n=1, rollouts=1, max_tokens=160)
        drawn = [FAMILY.problem(split, i) for i in range(problems)]
        rows, _ = asyncio.run(faithfulness.measure(LocalPolicy(load_policy(folder)), drawn, TASKS, config))
        found = {name: [of[0].get(name) for of in rows] for name in MEASURES}
        write_atomically(stored, json.dumps(found))
    known: Measures = json.loads(stored.read_text())
    return known


def headline(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """What each arm reaches from each start: right answers, and the use of crops."""
    goals = {("neglect", "right"): 0.9, ("neglect", "used"): 0.8, ("illusion", "right"): 0.7, ("illusion", "used"): 0.7}
    return {
        f"{row['start']}_{measure}_{row['arm']}": (row[measure], goal)
        for (start, measure), goal in goals.items()
        for row in rows
        if row["start"] == start and row["arm"] in ARMS and row[measure] is not None
    }


if __name__ == "__main__":
    main()
