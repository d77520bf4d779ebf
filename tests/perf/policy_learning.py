"""Step rewards against the outcome alone, at equal rollouts: right answers, and solutions with every step right.

    make demo && python -m tests.perf.policy_learning
    python -m tests.perf.policy_learning --plan                                   # the runs and their CPU-hours
    python -m tests.perf.policy_learning --small --settings count_grid --arms outcome "PRM gated"      # a look

The policy is the built-in one, the reward model the demo's. Each arm is a recipe of configs/policy; `PRM plain` is the
outcome plus the scores as they are, `PRM alone` uses no answer, `true steps` is a bound. Settings: two families without
zooms; groups of four; hard problems, which the policy solves at most once in eight times; and, over many rounds, a
reward model that was trained on a tenth of the trees and without its surprise. All arms of a setting sample as many
rollouts from the same problems and solve the same held-out problems; differences are paired by problem and seed, with
95% intervals over both. `area` is the mean over all validations of a run after the first; `exploited_at` is the round
at which the run would have stopped by itself, because its reward rose and its right answers fell. A finished run is
read.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq

from tests.perf.datasets import DEMO, OF_DEMO
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
from train import grpo, prm
from train.policy.grpo_config import GrpoConfig, TermConfig, ValidationConfig
from train.policy.monitors import exploited
from train.reward.config import PrmConfig
from vlprm.errors import UserError
from vlprm.model.checkpoint_config import CHECKPOINT_FILE
from vlprm.runs.config import parse
from vlprm.runs.folder import write_atomically
from vlprm.schema import Problem
from vlprm.serving.config import ModelConfig
from vlprm.tasks import TASKS

SIZES = {"rounds": (20, 1), "many": (40, 2), "seeds": (3, 1), "problems": (512, 8), "candidates": (2400, 48)}
POLICY, ROLLOUTS = "builtin/policy", 128  # rollouts of a round
OUTCOME, PLAIN = "outcome", "PRM plain"
RIVALS = {OUTCOME: "outcome", PLAIN: "plain"}  # arms that the others are compared with, and their names in keys
ARMS = {  # the recipe of each arm
    OUTCOME: "grpo",
    "tree values": "tree_rl",
    "PRM gated": "ps_grpo",
    "PRM where level": "veri_gate",
    PLAIN: "grpo",
    "PRM alone": "prm_minimum",
    "true steps": "true_steps",
}
PLAIN_TERM = TermConfig(reward="prm", paid="step", value="none", lam=1.0, normalise="reward_std", weight=0.5)
FIRST, EASY = (
    100_000,
    1 / 8,
)  # index of the first problem of a seed; a problem is hard up to this share of right answers
HARD_FIRST, HELD_OUT = 2_000_000, 1_000_000  # indices of the candidates for hard problems, and of those held out
FALL = ValidationConfig().fall  # the fall of right answers at which a run stops by default
# CPU-seconds of a rollout that is sampled and learnt, with a reward model, of one that is only sampled, and of the
# weakened reward model's training.
LEARNT, JUDGED, SAMPLED, WEAKENED = 0.025, 0.035, 0.012, 40.0


@dataclass(frozen=True)
class Setting:
    """Problems of a family, the size of a group, the arms, and whether problems are hard, the reward model is weakened,
    and the run has many rounds."""

    family: str
    arms: tuple[str, ...]
    each: int = 8
    hard: bool = False
    weak: bool = False


SPARSE = (OUTCOME, "PRM gated", "PRM where level", PLAIN, "PRM alone", "true steps")
SETTINGS = {
    "count_grid": Setting("count_grid", tuple(ARMS)),
    "pattern": Setting("pattern", tuple(ARMS)),
    "groups of four": Setting("count_grid", SPARSE, each=4),
    "hard problems": Setting("count_grid", SPARSE[:-1], hard=True),
    "weak reward model": Setting("count_grid", (OUTCOME, "PRM gated", PLAIN, "PRM alone"), weak=True),
}


def main() -> None:
    parser = arguments(str(__doc__), SIZES)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--prm", type=Path, default=DEMO / "prm")
    parser.add_argument("--dataset", type=Path, default=OF_DEMO)
    asked = sized(parser.parse_args(), SIZES)
    if asked.plan:
        tell([job for name in asked.settings for job in jobs_of(name, asked)])
        return
    rows = [row for name in asked.settings for row in rows_of_setting(name, asked)]
    write_result(
        "policy_learning",
        rows,
        headline(rows),
        effects_of(rows, "setting", ("right", "all_right"), ("base", *RIVALS.values()), asked),
    )


def jobs_of(name: str, asked: argparse.Namespace) -> list[Job]:
    """The runs of a setting, with their expected CPU-seconds."""
    setting, solving = SETTINGS[name], asked.problems * SAMPLED
    jobs = [*[Job(f"{name}: base", solving)] * asked.seeds, Job(f"{name}: vote", VOTES * solving)]
    if setting.hard:
        jobs.append(Job(f"{name}: choice", 2 * asked.candidates * 8 * SAMPLED))
    if setting.weak:
        jobs.append(Job(f"{name}: reward model", WEAKENED))
    for arm in chosen(setting, asked):
        rollout = JUDGED if arm.startswith("PRM") else LEARNT
        run = rounds_of(setting, asked) * ROLLOUTS * rollout + 6 * validation_of(asked) * SAMPLED
        jobs += [Job(f"{name}: {arm}", run + solving)] * asked.seeds
    return jobs


def chosen(setting: Setting, asked: argparse.Namespace) -> list[str]:
    return [arm for arm in setting.arms if arm in asked.arms]


def rounds_of(setting: Setting, asked: argparse.Namespace) -> int:
    return int(asked.many if setting.weak else asked.rounds)


def validation_of(asked: argparse.Namespace) -> int:
    return max(1, int(asked.problems) // 4)


def rows_of_setting(name: str, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for the base, one for its vote, and one for each arm."""
    setting, seeds = SETTINGS[name], range(asked.seeds)
    problems = held_out(setting, asked)
    base = [solved(POLICY, problems, 1, 1 + s, folder_of(name, f"base-{s}", asked) / "solved.json") for s in seeds]
    vote = solved(POLICY, problems, VOTES, 0, folder_of(name, f"base, vote of {VOTES}", asked) / "solved.json")["vote"]
    rows: list[dict[str, Any]] = [
        {"setting": name, "arm": "base", **means(base)},
        {"setting": name, "arm": f"base, vote of {VOTES}", "right": fmean(share or 0.0 for share in vote)},
    ]
    runs: dict[str, list[Measures]] = {}
    told: dict[str, list[dict[str, Any]]] = {}
    for arm in chosen(setting, asked):
        told[arm] = [trained(name, arm, seed, asked) for seed in seeds]
        folders = [folder_of(name, f"{arm}-{seed}", asked) for seed in seeds]
        runs[arm] = [
            solved(folder / grpo.POLICY, problems, 1, 1 + seed, folder / "solved.json")
            for seed, folder in zip(seeds, folders, strict=True)
        ]
        print(name, arm, means(runs[arm]), flush=True)
    for arm, of_seeds in runs.items():
        row: dict[str, Any] = {"setting": name, "arm": arm, **means(of_seeds), "of_seeds": told[arm]}
        rivals = {"base": base, **{key: runs[one] for one, key in RIVALS.items() if one in runs and one != arm}}
        for rival, measures in rivals.items():
            for measure in ("right", "all_right"):
                row[f"{measure}_over_{rival}"] = gain(table(of_seeds, measure), table(measures, measure))
        rows.append(row)
    return rows


def means(of_seeds: Sequence[Measures]) -> dict[str, float | None]:
    return {name: mean_of(table(of_seeds, name)) for name in ("right", "all_right", "answered")}


def folder_of(name: str, run: str, asked: argparse.Namespace) -> Path:
    size = f"{rounds_of(SETTINGS[name], asked)}-{asked.problems}"
    return FOLDER / "policy_learning" / f"{name.replace(' ', '_')}-{size}" / run.replace(" ", "_")


def trained(name: str, arm: str, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    """One run of an arm, in numbers."""
    setting, run = SETTINGS[name], folder_of(name, f"{arm}-{seed}", asked)
    config = parse(GrpoConfig, ["--config", f"policy/{ARMS[arm]}", "--run", str(run)])
    rounds = rounds_of(setting, asked)
    checkpoint = weakened(asked) if setting.weak else asked.prm
    judge = ModelConfig(str(checkpoint)) if config.prm is not None or arm == PLAIN else None
    validation = ValidationConfig(validation_of(asked), every=max(1, rounds // 5), fall=0.99)  # none is stopped
    config = dataclasses.replace(
        config,
        rounds=rounds,
        seed=seed,
        first=FIRST * (1 + seed),
        prm=judge,
        terms=(*config.terms, PLAIN_TERM) if arm == PLAIN else config.terms,
        rollouts=dataclasses.replace(config.rollouts, problems=ROLLOUTS // setting.each, each=setting.each),
        validation=validation,
        tasks=(setting.family,),
    )
    if setting.hard:  # truth and validation need drawn tasks, which a file of chosen problems does not name
        file = problem_file(setting, asked)
        config = dataclasses.replace(config, problem_file=file, validation=ValidationConfig(problems=0))
    grpo.main(config)
    lines = metric_lines(run)
    curves = {m: [line[m] for line in lines if m in line] for m in ("validation_right", "validation_all_steps_right")}
    gaps = [line["prm_less_truth"] for line in lines if "prm_less_truth" in line]
    return {
        "rollouts": sum(line.get("rollouts", 0) for line in lines),
        **curves,
        **{f"area_{m}": fmean(curve[1:]) for m, curve in curves.items() if len(curve) > 1},
        "prm_less_truth": [gaps[0], gaps[-1]] if gaps else None,
        "exploited_at": next((at for at in range(len(lines)) if exploited(lines[: at + 1], FALL)), None),
        "seconds": json.loads((run / "seconds.json").read_text())["grpo"],
    }


def held_out(setting: Setting, asked: argparse.Namespace) -> list[Problem]:
    """The problems that all arms solve in the end."""
    family = TASKS[setting.family]
    if not setting.hard:
        return [family.problem("test", HELD_OUT + i) for i in range(asked.problems)]
    return hard(setting, "test", asked)[: asked.problems]


def hard(setting: Setting, split: str, asked: argparse.Namespace) -> list[Problem]:
    """The candidates of a split that the policy hardly solves. It solves them again for the table, because those that
    were chosen by luck are easier than they seemed."""
    family = TASKS[setting.family]
    problems = [family.problem(split, HARD_FIRST + i) for i in range(asked.candidates)]
    stored = FOLDER / "policy_learning" / f"{setting.family}-{split}-{asked.candidates}.json"
    shares = solved(POLICY, problems, 8, 0, stored)["right"]
    found = [problem for problem, share in zip(problems, shares, strict=True) if share is not None and share <= EASY]
    if not found:
        raise UserError(f"none of {len(problems)} problems of {setting.family} is hard; ask for more candidates")
    return found


def problem_file(setting: Setting, asked: argparse.Namespace) -> Path:
    """The hard problems of the training split as a file."""
    folder = FOLDER / "policy_learning" / f"hard-{setting.family}-{asked.candidates}"
    path = folder / "problems.jsonl"
    if not path.exists():
        lines = []
        for number, problem in enumerate(hard(setting, "train", asked)):
            write_atomically(folder / f"{number}.png", problem.images[0])
            record = {
                "id": problem.id.replace("/", " "), "question": problem.question, "images": [f"{number}.png"],
                "answer": problem.answer, "answer_type": problem.answer_type,
            }  # fmt: skip
            lines.append(json.dumps(record) + "\n")
        write_atomically(path, "".join(lines))
    return path


def weakened(asked: argparse.Namespace) -> Path:
    """A reward model that was trained on a tenth of the trees, without its surprise."""
    folder = FOLDER / "policy_learning" / "weak_prm"
    if not (folder / "prm" / CHECKPOINT_FILE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = pq.read_table(asked.dataset)
        few = rows.slice(0, max(8, rows.num_rows // 10))
        pq.write_table(few, folder / "few.parquet")
        config = parse(PrmConfig, ["--config", "configs/demo/prm.yaml"])
        config = dataclasses.replace(
            config, dataset=folder / "few.parquet", run=folder / "prm", surprise=False, epochs=1
        )
        prm.main(config)
    return folder / "prm"


def headline(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """What each arm with a reward model gains over the outcome alone, in points, by setting."""
    return {
        f"{row['setting']}, {row['arm']}: {measure}": (row[f"{measure}_over_outcome"]["gain"], 0.0)
        for row in rows
        for measure in ("right", "all_right")
        if row["arm"].startswith("PRM") and row.get(f"{measure}_over_outcome", {}).get("gain") is not None
    }


if __name__ == "__main__":
    main()
