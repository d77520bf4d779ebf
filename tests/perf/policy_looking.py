"""Teach a policy to look again: credit for zooms against the outcome alone, from two damaged starts, on fine print.

    python -m tests.perf.policy_looking
    python -m tests.perf.policy_looking --rounds 2 --seeds 1 --problems 16 --arms grpo    # a look at small size

The starts are made from the built-in backbone, which reads prints, by a few steps on damaged solutions of the task's
solver. *neglect*: most solutions skip their zooms and guess the print. *illusion*: they zoom rightly, and most guess
all the same, so that no reward for regions sees it. Each arm is a recipe of configs/policy. After a run, `right`, the
zooms and `used` (right rollouts with the last crop less those with a blank) are measured on the same validation
problems for all arms. A finished arm is read.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from eval import faithfulness
from eval.runs.config import FaithfulnessConfig
from tests.perf.results import FOLDER, write_result
from train import grpo
from train.policy.grpo_config import GrpoConfig, ValidationConfig
from train.policy.lessons import Lesson, batch_lessons, lesson_row
from vlprm.model.checkpoint_config import FILE_NAME
from vlprm.model.loading import freeze, load_policy
from vlprm.policy.local import LocalPolicy
from vlprm.runs.config import parse
from vlprm.runs.folder import write_atomically
from vlprm.schema import ErrorKind, Problem
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS
from vlprm.zoom.execute import executed_steps

ARMS = ("grpo", "r_grpo", "virl", "zoom_value", "zoom_siblings", "zoom_likelihood")
FAMILY = TASKS["fine_print"]
PROBLEMS, EACH = 12, 8  # of a round
TAUGHT, BATCH = 100_000, 16  # index of the first problem of the damaged solutions, and solutions per step
MEASURES = ("right", "zooms_at_all", "correct_zooms", "used", "right_blank", "no_answer_blank")


@dataclass(frozen=True)
class Start:
    """A damage: the share of guessing solutions, whether these zoom, the steps that teach it and their learning rate,
    and the learning rate of the arms."""

    guess: float
    zooms: bool
    steps: int
    teach: float
    learn: float


STARTS = {"neglect": Start(0.97, False, 20, 5e-4, 1e-4), "illusion": Start(0.9, True, 20, 5e-4, 3e-4)}


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser()
    for name, default in (("rounds", 10), ("seeds", 3), ("problems", 512)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    asked = parser.parse_args()
    rows = []
    for seed in range(asked.seeds):
        for name, start in STARTS.items():
            folder = FOLDER / "policy_looking" / f"{name}-{seed}"
            damaged(folder / "start", start, seed)
            before = measured(folder / "start", asked.problems)
            for arm in asked.arms:
                rows.append({"start": name, "arm": arm, "seed": seed, **learnt(folder, arm, start, seed, asked)})
                rows[-1] |= {f"{measure}_before": value for measure, value in before.items()}
                print(json.dumps(rows[-1]))
    write_result("policy_looking", rows, headline(rows))


def damaged(folder: Path, start: Start, seed: int) -> None:
    """Teach the built-in backbone the damage, unless it is done."""
    if (folder / FILE_NAME).exists():
        return
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


def solution(problem: Problem, start: Start, seed: int) -> Lesson:
    """The solver's solution, in which most prints are guessed."""
    chance = random.Random(f"{seed}/{problem.id}")
    guesses = chance.random() < start.guess

    def write(kind: ErrorKind, concept: str, truth: Any, near: Sequence[Any]) -> Any:
        return chance.choice([truth, *near]) if guesses and concept.startswith("print ") else truth

    texts = FAMILY.solve(problem.meta["scene"], write)
    shown = [text for text in texts if start.zooms or not guesses or not text.startswith("[zoom]")]
    return Lesson(problem, executed_steps(problem, shown), (False,) * len(shown))


def learnt(folder: Path, arm: str, start: Start, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    """What an arm reaches from a start; a run that was killed goes on."""
    run = folder / f"{arm}-{asked.rounds}"
    config = parse(GrpoConfig, ["--config", f"policy/{arm}", "--run", str(run)])
    config = dataclasses.replace(
        config,
        policy=ModelConfig(str(folder / "start")),
        tasks=(FAMILY.name,),
        first=TAUGHT * (10 + seed),
        rounds=asked.rounds,
        rollouts=dataclasses.replace(config.rollouts, problems=PROBLEMS, each=EACH),
        learning_rate=start.learn,
        validation=ValidationConfig(problems=0),
        seed=seed,
    )
    grpo.main(config)
    lines = [json.loads(line) for line in (run / grpo.METRICS).read_text().splitlines()]
    return {
        "rollouts": sum(line.get("rollouts", 0) for line in lines),
        "curve": [line["right"] for line in lines if "right" in line],
        "seconds": json.loads((run / "seconds.json").read_text())["grpo"],
        **measured(run / grpo.POLICY, asked.problems),
    }


def measured(folder: Path, problems: int) -> dict[str, float | None]:
    """Means over validation problems for the policy in a folder; stored beside it."""
    stored = folder.parent / f"{folder.name}-{problems}.json"
    if not stored.exists():
        config = FaithfulnessConfig(run=folder, n=1, rollouts=4, max_tokens=160)
        engine = LocalPolicy(load_policy(folder))
        drawn = [FAMILY.problem("validation", i) for i in range(problems)]
        rows, _ = asyncio.run(faithfulness.measure(engine, drawn, TASKS, config))
        found = faithfulness.summary(rows)
        means = {name: found[name]["mean"] if name in found else None for name in MEASURES}
        write_atomically(stored, json.dumps(means))
    known: dict[str, float | None] = json.loads(stored.read_text())
    return known


def headline(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """What each arm reaches from each start: right answers, and the use of crops."""
    goals = {("neglect", "right"): 0.9, ("neglect", "used"): 0.8, ("illusion", "right"): 0.7, ("illusion", "used"): 0.7}
    found = {}
    for (start, measure), goal in goals.items():
        for arm in dict.fromkeys(row["arm"] for row in rows):
            known = [row[measure] for row in rows if (row["start"], row["arm"]) == (start, arm)]
            if values := [value for value in known if value is not None]:
                found[f"{start}_{measure}_{arm}"] = (fmean(values), goal)
    return found


if __name__ == "__main__":
    main()
