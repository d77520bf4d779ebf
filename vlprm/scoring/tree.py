"""Score solutions step by step and aggregate step rewards.

    checkpoint = load_reward_model("runs/demo/prm")
    rewards = score(checkpoint, [(problem, solution.steps)])[0]      # P(correct) of each step

A step's reward is the probability of `correct` at its last token (for a zoom: after its crop). The solutions of a
problem are read as one tree (`vlprm.scoring.kv_tree`): the image, the prompt and each shared step once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlprm.model.loading import Checkpoint
from vlprm.model.packing import PackedRow, padded_batches
from vlprm.model.reward_model import step_scores
from vlprm.schema import Problem, Step, StepScore
from vlprm.scoring.kv_tree import MAX_TOKENS
from vlprm.scoring.memory import TreeMemory
from vlprm.scoring.scored_tree import ScoredTree, of_all
from vlprm.steps import one_step_per_turn

ScoringRequest = tuple[Problem, Sequence[Step]]


def score_steps(checkpoint: Checkpoint, solutions: Sequence[ScoringRequest]) -> list[list[StepScore | None]]:
    """One list of scores per solution, one score per step; None for a step that cannot be read (see `ScoredTree`).
    Solutions of one problem may be in any order. UserError if a score is not finite."""
    inputs = checkpoint.inputs
    if inputs.family.cannot_pack:
        return [scores for scores, _ in score_apart(checkpoint, solutions)]
    trees: dict[ProblemKey, ScoredTree] = {}
    of_problem: dict[ProblemKey, list[Sequence[Step]]] = {}
    for problem, steps in solutions:
        trees.setdefault(problem_key(problem), ScoredTree(inputs, problem))
        of_problem.setdefault(problem_key(problem), []).append(steps)
    for key, tree in trees.items():
        tree.ask(of_problem[key])
    TreeMemory(checkpoint).read(list(trees.values()), keep=False)
    return [trees[problem_key(problem)].scores(steps) for problem, steps in solutions]


ProblemKey = tuple[str, tuple[bytes, ...]]


def problem_key(problem: Problem) -> ProblemKey:
    """The parts of a problem that a model sees, on which its scores depend."""
    return problem.question, problem.images


@torch.inference_mode()
def score_apart(
    checkpoint: Checkpoint, solutions: Sequence[ScoringRequest]
) -> list[tuple[list[StepScore | None], int]]:
    """For backbones that cannot read branches: the scores of each solution, read in rows of its own, and the tokens of
    these rows."""
    inputs = checkpoint.inputs
    parts = [inputs.rows_apart(p, inputs.readable(p, steps)) for p, steps in solutions]
    rows = [row for of_solution in parts for row in of_solution]
    found: list[Sequence[StepScore]] = [()] * len(rows)
    for group in padded_batches([len(row.ids) for row in rows], MAX_TOKENS):
        for i, of_row in zip(group, _of_rows(checkpoint, [rows[i] for i in group]), strict=True):
            found[i] = of_row[: len(rows[i].step_ends)]
    waiting = iter(found)
    known = [[score for _ in of_solution for score in next(waiting)] for of_solution in parts]
    tokens = [sum(len(row.ids) for row in of_solution) for of_solution in parts]
    return [(of_all(scores, steps), read) for scores, read, (_, steps) in zip(known, tokens, solutions, strict=True)]


def _of_rows(checkpoint: Checkpoint, rows: Sequence[PackedRow]) -> list[list[StepScore]]:
    """The scores of the rows in one pass, or in two if their batch does not fit into the memory of the device."""
    try:
        batch = {name: value.to(checkpoint.model.device) for name, value in checkpoint.inputs.step_batch(rows).items()}
        return step_scores(checkpoint.model(**batch), checkpoint.config.head)
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
    half = len(rows) // 2
    return [*_of_rows(checkpoint, rows[:half]), *_of_rows(checkpoint, rows[half:])]


def score(checkpoint: Checkpoint, solutions: Sequence[ScoringRequest]) -> list[list[float | None]]:
    """Rewards: the probability of `correct` for each step of each solution; None for a step that cannot be read."""
    return [[None if s is None else s.correct for s in scores] for scores in score_steps(checkpoint, solutions)]


def score_whole(checkpoint: Checkpoint, solutions: Sequence[ScoringRequest]) -> list[float | None]:
    """One reward per solution, read as a single step (VL-PRM's one-shot reading, arXiv 2509.23250). None for a
    solution without steps."""
    found = [
        scores[-1] if scores else None
        for scores in score_steps(checkpoint, [(problem, one_step_per_turn(steps)) for problem, steps in solutions])
    ]
    return [None if score is None else score.correct for score in found]
