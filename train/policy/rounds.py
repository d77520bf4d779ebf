"""The rollouts of a round: sampled, given their outcome, and stored before anything is learnt from them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Literal

from train.policy.advantages import Group, ScoreSteps
from train.policy.forks import forked_rollouts
from train.policy.grpo_config import ExcludeConfig, GrpoConfig
from train.policy.trajectories import Path, SampledTurn, Trajectory, kept_turn, path_of
from vlprm.answers import is_correct
from vlprm.errors import ProblemError
from vlprm.model.inputs import InputBuilder
from vlprm.policy import Policy, Request, all_answers
from vlprm.policy.rollout import FAILURES, STOPS, TOO_MANY_ZOOMS, Rollout
from vlprm.runs.folder import write_atomically
from vlprm.runs.journal import read_records
from vlprm.schema import Problem, from_json, to_json

Fate = Literal["result", "wrong", "excluded"]
# Reasons of exclusion besides those of `vlprm.policy.rollout.STOPS`.
NO_IDS, ALONE = "no_ids", "alone"
StoredNumbers = tuple[float | None, ...]  # `StepNumbers` that a record holds


@dataclass(frozen=True)
class Rated:
    """A trajectory and what was found out about it.

    `outcome`: 1 (right), 0 (wrong) or None (no result). `excluded`: why it is not trained on; empty if it is. Per step:
    the `rewards` of each term, the reward model's `scores`, the ground `truth` (1 or 0), and the `advantages`; None
    where they are unknown. A critique's outcome is whether its verdict is right; `worth` is its reward in [0, 1].
    """

    trajectory: Trajectory
    outcome: float | None
    excluded: str = ""
    rewards: tuple[StoredNumbers | None, ...] = ()
    scores: StoredNumbers | None = None
    truth: StoredNumbers | None = None
    advantages: StoredNumbers = ()
    worth: float | None = None


Rollouts = list[list[Rated]]  # one list per problem of a round


def steps_of(trajectory: Trajectory) -> int:
    """The number of steps that get an advantage. Ids of a first step that a limit cut short count as one."""
    return max(1, len(trajectory.steps))


def fate(stop: str, exclude: ExcludeConfig) -> Fate:
    """What becomes of a solution by its stop: a result, a wrong answer, or left out. Failed calls are never wrong."""
    assert stop in STOPS, stop
    if stop == "answer":
        return "result"
    left_out = {
        **dict.fromkeys((*FAILURES, "max_steps"), True),
        TOO_MANY_ZOOMS: exclude.over_turn,
        "budget": exclude.over_turn,
        "length": exclude.over_length,
    }
    return "excluded" if left_out.get(stop, False) else "wrong"


def outcome_of(problem: Problem, answer: str | None, stop: str, exclude: ExcludeConfig) -> float | None:
    """1, 0 or None. Without a known answer, nothing is right or wrong."""
    found = fate(stop, exclude)
    if found == "excluded" or problem.answer is None:
        return None
    return float(bool(is_correct(answer, problem.answer, problem.answer_type))) if found == "result" else 0.0


def in_epochs(ids: Sequence[str], start: int, size: int, seed: int) -> list[str]:
    """`size` ids from place `start` on, each once, of endless epochs that have an order of their own."""
    epochs: dict[int, list[str]] = {}
    chosen = []
    for at in range(start, start + size):
        epoch, place = divmod(at, len(ids))
        if epoch not in epochs:
            epochs[epoch] = random.Random(f"{seed}/{epoch}").sample(ids, len(ids))
        chosen.append(epochs[epoch][place])
    return list(dict.fromkeys(chosen))


def usable(ids: Sequence[str], problem: Callable[[str], Problem], inputs: InputBuilder) -> tuple[list[Problem], int]:
    """The problems that the policy can read, and the number of those that it cannot."""
    found = []
    for name in ids:
        try:
            made = problem(name)
            inputs.prompt(made)
        except ProblemError:
            continue
        found.append(made)
    return found, len(ids) - len(found)


async def sample(
    engine: Policy,
    problems: Sequence[Problem],
    config: GrpoConfig,
    inputs: InputBuilder,
    version: int,
    scored: ScoreSteps | None = None,
) -> Rollouts:
    """The rollouts of a round by policy `version`, with their outcomes. `scored` gives a reward model's scores."""
    asked = [
        Request(
            problem, (), config.rollouts.each, f"round {version}/{problem.id}", config.seed,
            temperature=config.rollouts.temperature, max_tokens=config.rollouts.max_tokens, logprobs=True,
        )
        for problem in problems
    ]  # fmt: skip
    forks = config.rollouts.forks
    found = await all_answers(forked_rollouts(engine, request, inputs, forks, scored) for request in asked)
    return [
        [rated(problem, rollout, inputs, version, config.exclude) for rollout in of_problem]
        for problem, of_problem in zip(problems, found, strict=True)
    ]


def rated(problem: Problem, rollout: Rollout, inputs: InputBuilder, version: int, exclude: ExcludeConfig) -> Rated:
    """A rollout with its outcome, or the reason why it is left out."""
    solution = rollout.solution
    trajectory = trajectory_of(rollout, inputs, version)
    outcome = outcome_of(problem, solution.answer, solution.stop, exclude)
    if fate(solution.stop, exclude) == "excluded":
        return Rated(trajectory, outcome, solution.stop)
    return Rated(trajectory, outcome, "" if _has_ids(rollout) else NO_IDS)


def _has_ids(rollout: Rollout) -> bool:
    """Whether all that the policy sampled has ids with log-probabilities; a server may not give them."""
    return bool(rollout.turns) and all(turn.ids and len(turn.logprobs) == len(turn.ids) for turn in rollout.turns)


def trajectory_of(rollout: Rollout, inputs: InputBuilder, version: int) -> Trajectory:
    """The trajectory of a rollout. Without ids of every turn, it has no turns."""
    solution, at = rollout.solution, 0
    turns: list[SampledTurn] = []
    for turn in rollout.turns if _has_ids(rollout) else ():
        steps = solution.steps[at : at + turn.steps]
        at += turn.steps
        cut = bool(steps) and (steps[-1].ends_turn or turn.stop == "zoom")
        made = kept_turn(inputs, steps, turn.ids, turn.logprobs) if cut else None
        turns.append(made or SampledTurn(turn.steps, turn.ids, turn.logprobs))
    return Trajectory(
        solution.problem_id, solution.steps, tuple(turns), solution.answer, solution.stop, version, rollout.given
    )


def group_of(rated_paths: Sequence[Rated], paths: Sequence[Path]) -> Group:
    """The states and outcomes of the paths of a problem; paths with equal ids share states."""
    numbers: dict[tuple[object, ...], int] = {}
    states = []
    for one, path in zip(rated_paths, paths, strict=True):
        seen = [(part.key, token) for part in path.parts for token in part.segment.ids]
        of_path = []
        for k in range(steps_of(one.trajectory)):
            end = next((at for at, step in enumerate(path.steps) if step > k), len(seen))
            of_path.append(numbers.setdefault(tuple(seen[:end]), len(numbers)))
        states.append(tuple(of_path))
    return Group(tuple(states), tuple(one.outcome for one in rated_paths))


def group(rated_paths: Sequence[Rated], problem: Problem, inputs: InputBuilder) -> Group:
    """The group of the paths that are trained on."""
    kept = [one for one in rated_paths if not one.excluded]
    return group_of(kept, [path_of(one.trajectory, problem, inputs) for one in kept])


def without_alone(paths: Sequence[Rated]) -> list[Rated]:
    """The paths of a problem; one that is alone in its group is marked as excluded, because it cannot teach."""
    is_alone = sum(not one.excluded for one in paths) == 1
    return [replace(one, excluded=one.excluded or ALONE) for one in paths] if is_alone else list(paths)


# --- the stored round


def round_file(run: FilePath, round_number: int) -> FilePath:
    """The file of a round."""
    return run / "rounds" / f"{round_number:05}.jsonl"


def write_round(run: FilePath, round_number: int, rollouts: Rollouts) -> None:
    """Store a round, all of it or nothing."""
    lines = [
        json.dumps({"key": f"{one.trajectory.problem_id}/{i}", **to_json(one)}) + "\n"
        for of_problem in rollouts
        for i, one in enumerate(of_problem)
    ]
    write_atomically(round_file(run, round_number), "".join(lines))


def read_round(run: FilePath, round_number: int) -> Rollouts | None:
    """The stored round, by problem; None if it is not stored."""
    path = round_file(run, round_number)
    if not path.exists():
        return None
    found: dict[str, list[Rated]] = {}
    for record in read_records(path):
        one = from_json(Rated, {name: value for name, value in record.items() if name != "key"})
        found.setdefault(one.trajectory.problem_id, []).append(one)
    return list(found.values())
