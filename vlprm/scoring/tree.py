"""Score solutions step by step and aggregate step rewards.

    checkpoint = load_reward_model("runs/demo/prm")
    rewards = score(checkpoint, [(problem, solution.steps)])[0]      # P(correct) of each step

A step's reward is the probability of `correct` at its last token (for a zoom: after its crop). The solutions of a
problem are read as one tree (`vlprm.scoring.kv_tree`): the image, the prompt and each shared step once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from vlprm.model.inputs import InputBuilder
from vlprm.model.loading import Checkpoint
from vlprm.model.packing import Node, Segment, padded_batches
from vlprm.model.reward_model import step_scores
from vlprm.schema import Problem, Step, StepScore
from vlprm.scoring.kv_tree import MAX_TOKENS, Extension, KVTree, extend
from vlprm.steps import one_step_per_turn

ScoringRequest = tuple[Problem, Sequence[Step]]


class ScoredTree:
    """The scored solutions of one problem as a tree. It maps a parent node and a step to the step's node; steps that
    cannot be read (`InputBuilder.readable`) have no node."""

    def __init__(self, inputs: InputBuilder, problem: Problem) -> None:
        self.inputs, self.problem = inputs, problem
        self.read = KVTree()
        self.new_tokens: list[int] = []  # per solution of the last growth: tokens that earlier ones do not share
        self._node: dict[tuple[int, Step], int] = {}
        self._scored_at: dict[int, int] = {}
        self._tokens: dict[int, int] = {}  # number of tokens on the path to a node

    def growth(self, solutions: Sequence[Sequence[Step]], keep: bool) -> Extension:
        """The nodes to read so that all steps of the solutions have scores. Tokens outside these solutions are
        dropped."""
        self._forget_others(solutions)
        first = len(self.read.above)
        prompt = self.inputs.prompt(self.problem)
        self._tokens[0] = len(prompt.ids)
        nodes: list[Node] = [] if first else [Node(prompt, -1)]
        ends = []
        for steps in solutions:
            self._grow(nodes, first, steps)
            ends.append(len(nodes))
        if not first and len(nodes) == 1:  # without a step to score, the prompt is not read
            nodes, ends = [], [0] * len(ends)
        parts = [nodes[a:b] for a, b in pairwise([0, *ends])]
        self.new_tokens = [sum(len(node.segment.ids) for node in part) for part in parts]
        return Extension(self.read, nodes, keep)

    def _grow(self, nodes: list[Node], first: int, steps: Sequence[Step]) -> None:
        above = 0
        for k, step in enumerate(steps):
            if (above, step) not in self._node:
                after, tokens = steps[k - 1] if k else None, self._tokens[above]
                segment = self.inputs.readable_step(self.problem, step, after, tokens)
                if segment is None:
                    break
                self._add(nodes, first, above, step, segment)
            above = self._node[above, step]

    def scores(self, steps: Sequence[Step]) -> list[StepScore | None]:
        """The score of each step; None if the tree has none."""
        return of_all([self.read.scores[self._scored_at[node]] for node in self._path(steps)], steps)

    def _add(self, nodes: list[Node], first: int, above: int, step: Step, segment: Segment) -> None:
        node = first + len(nodes)
        self._node[above, step] = self._scored_at[node] = node
        self._tokens[node] = self._tokens[above] + len(segment.ids)
        if self.inputs.config.head == "verdict":
            nodes += [Node(segment, above), Node(self.inputs.verdict_question(), node, scores=0)]
            self._scored_at[node] = node + 1
        else:
            nodes.append(Node(segment, above, writes=0, scores=0))

    def _path(self, steps: Sequence[Step]) -> list[int]:
        """The nodes of the steps, as far as they exist."""
        path: list[int] = []
        for step in steps:
            node = self._node.get((path[-1] if path else 0, step))
            if node is None:
                break
            path.append(node)
        return path

    def _forget_others(self, solutions: Sequence[Sequence[Step]]) -> None:
        if self.read.above:
            kept = {0, *(node for steps in solutions for node in self._path(steps))}
            self.read.keep(kept)
            self._node = {key: node for key, node in self._node.items() if node in kept}


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
    extend(checkpoint, [tree.growth(of_problem[key], keep=False) for key, tree in trees.items()])
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
    inputs, model = checkpoint.inputs, checkpoint.model
    parts = [inputs.rows_apart(p, inputs.readable(p, steps)) for p, steps in solutions]
    rows = [row for of_solution in parts for row in of_solution]
    found: list[Sequence[StepScore]] = [()] * len(rows)
    for group in padded_batches([len(row.ids) for row in rows], MAX_TOKENS):
        batch = inputs.step_batch([rows[i] for i in group])
        output = model(**{name: value.to(model.device) for name, value in batch.items()})
        for i, of_row in zip(group, step_scores(output, inputs.config.head), strict=True):
            found[i] = of_row[: len(rows[i].step_ends)]
    waiting = iter(found)
    known = [[score for _ in of_solution for score in next(waiting)] for of_solution in parts]
    tokens = [sum(len(row.ids) for row in of_solution) for of_solution in parts]
    return [(of_all(scores, steps), read) for scores, read, (_, steps) in zip(known, tokens, solutions, strict=True)]


def of_all(scores: Sequence[StepScore | None], steps: Sequence[Step]) -> list[StepScore | None]:
    """The scores of the steps that could be read, then None for the rest."""
    return [*scores, *[None] * (len(steps) - len(scores))]


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
